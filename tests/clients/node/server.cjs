// An application on a server: evaluates flags with @openfeature/ofrep-provider and prints the results.
// The first argument is the job as JSON: {base, headers, evaluations: [{type, key, fallback, context}]}.
const { OpenFeature } = require('@openfeature/server-sdk');
const { OFREPProvider } = require('@openfeature/ofrep-provider');

const job = JSON.parse(process.argv[2]);

async function main() {
  await OpenFeature.setProviderAndWait(
    new OFREPProvider({ baseUrl: job.base, headers: Object.entries(job.headers) }),
  );
  const client = OpenFeature.getClient();
  const ask = {
    boolean: client.getBooleanDetails,
    string: client.getStringDetails,
    integer: client.getNumberDetails,
    float: client.getNumberDetails,
    object: client.getObjectDetails,
  };
  const results = [];
  for (const { type, key, fallback, context } of job.evaluations) {
    results.push(await ask[type].call(client, key, fallback, context));
  }
  process.stdout.write(`${JSON.stringify(results)}\n`);
  await OpenFeature.close();
}

main();
