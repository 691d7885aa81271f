// An application in a browser: @openfeature/ofrep-web-provider fetches all flags for one context, polls, and evaluates
// from memory. Prints a line of JSON at the start, one after each change, and one after the change to `nextContext`.
// The first argument is the job as JSON: {base, headers, context, poll, changes, nextContext,
// evaluations: [{type, key, fallback}]}; `changes` is the number of changes to wait for.
const { OpenFeature, ProviderEvents } = require('@openfeature/web-sdk');
const { OFREPWebProvider } = require('@openfeature/ofrep-web-provider');

const job = JSON.parse(process.argv[2]);
const exchanges = [];

let last = Promise.resolve();

// Imitates the browser's ETag handling and records the exchange. Requests are sent one after the other: the client
// polls by a timer, and on a slow machine an older response could arrive after a newer one.
function recordingFetch(request, options) {
  const tag = request.headers.get('if-none-match');
  const exchange = last.then(async () => {
    const response = await fetch(request, options);
    const body = response.status === 304 ? null : await response.text();
    exchanges.push({ status: response.status, sent: tag, etag: response.headers.get('etag') });
    return new Response(body, { status: response.status, headers: response.headers });
  });
  last = exchange.catch(() => {});
  return exchange;
}

function evaluateAll(client) {
  const ask = {
    boolean: client.getBooleanDetails,
    string: client.getStringDetails,
    integer: client.getNumberDetails,
    float: client.getNumberDetails,
    object: client.getObjectDetails,
  };
  return job.evaluations.map(({ type, key, fallback }) => ask[type].call(client, key, fallback));
}

function print(what, client) {
  process.stdout.write(`${JSON.stringify({ what, results: evaluateAll(client), exchanges })}\n`);
}

async function main() {
  const provider = new OFREPWebProvider({
    baseUrl: job.base,
    headers: Object.entries(job.headers),
    pollInterval: job.poll ?? 0,
    cacheMode: 'disabled',
    fetchImplementation: recordingFetch,
  });
  const client = OpenFeature.getClient();
  let changes = 0;
  const changed = new Promise((resolve) => {
    client.addHandler(ProviderEvents.ConfigurationChanged, (event) => {
      changes += 1;
      print({ changed: event.flagsChanged }, client);
      if (changes >= job.changes) resolve();
    });
  });
  try {
    await OpenFeature.setProviderAndWait(provider, job.context);
    print('ready', client);
  } catch (error) {
    print({ failed: error.message, code: error.code }, client);
  }
  if (job.changes > 0) await changed;
  if (job.nextContext) {
    await OpenFeature.setContext(job.nextContext);
    print('another context', client);
  }
  await OpenFeature.close();
  provider.stopPolling?.();
  process.exit(0);
}

main();
