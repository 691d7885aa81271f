// The console with live rebuilding, in front of a local server:
//
//   cargo run                     (in one shell)
//   npm run dev                   (in another; prints the link)
//
// PORT and PENNON_URL choose other addresses. The responses have the Content-Security-Policy of the function `console`,
// so that a violation shows up while developing.
import { context } from 'esbuild';
import { readFile } from 'node:fs/promises';
import { createServer, request } from 'node:http';
import { options } from './build.mjs';

const root = new URL('.', import.meta.url).pathname;
const port = Number(process.env.PORT ?? 9100);
const target = new URL(process.env.PENNON_URL ?? 'http://127.0.0.1:9000');
const types = { js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml', json: 'application/json', html: 'text/html' };
const headers = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; " +
    "base-uri 'none'; form-action 'none'; img-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-cache',
};

const out = `${root}.dev`;
const watcher = await context({ ...options, outdir: out });
await watcher.watch();

/** The page, which names its files by absolute paths, as that of the function `console` does. */
async function index() {
  const html = await readFile(`${root}static/index.html`, 'utf8');
  return html.replaceAll('="./', '="/console/');
}

function proxy(incoming, response) {
  // Without `Origin`, and with its own `Host`, the local server accepts the request as one of its own page.
  const { origin: _, ...rest } = incoming.headers;
  const outgoing = request(
    { host: target.hostname, port: target.port, path: incoming.url, method: incoming.method, headers: { ...rest, host: target.host } },
    (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    },
  );
  outgoing.on('error', () => response.writeHead(502).end());
  incoming.pipe(outgoing);
}

createServer(async (incoming, response) => {
  const { pathname } = new URL(incoming.url, 'http://console');
  if (!pathname.startsWith('/console')) return proxy(incoming, response);
  if (pathname === '/console/config.json') {
    response.writeHead(200, { ...headers, 'content-type': 'application/json' });
    return response.end('{"mode": "token", "production": ["production"]}');
  }
  const name = pathname.split('/').at(-1);
  const extension = /\.(js|css|svg|json)$/.exec(name)?.[1];
  try {
    const body = extension
      ? await readFile(`${extension === 'js' || extension === 'css' ? out : `${root}static`}/${name}`)
      : await index();
    response.writeHead(200, { ...headers, 'content-type': types[extension ?? 'html'] });
    response.end(body);
  } catch {
    response.writeHead(404, headers).end();
  }
}).listen(port, '127.0.0.1', () => {
  const token = process.env.PENNON_ADMIN_TOKEN;
  console.log(`http://127.0.0.1:${port}/console${token ? `#token=${token}` : ''}`);
});
