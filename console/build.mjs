// Writes dist/, which the function `console` embeds. Run it again after every change of src/ or static/: the files are
// committed, and CI fails if they differ from what this script writes.
import { build } from 'esbuild';
import { cp, mkdir, readFile, rm } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';

const root = new URL('.', import.meta.url).pathname;

/** Bytes of a file compressed with gzip that no build may exceed. */
const BUDGETS = { 'app.js': 45_000, 'app.css': 10_000 };

/** The options that the development server shares. */
export const options = {
  absWorkingDir: root,
  entryPoints: [
    { in: 'src/main.tsx', out: 'app' },
    { in: 'src/styles/app.css', out: 'app' },
  ],
  bundle: true,
  format: 'esm',
  target: 'es2022',
  jsx: 'automatic',
  jsxImportSource: 'preact',
  charset: 'utf8',
  legalComments: 'none',
  logLevel: 'warning',
};

async function main() {
  const out = `${root}dist`;
  await rm(out, { recursive: true, force: true });
  await mkdir(out);
  await build({ ...options, outdir: out, minify: true, define: { 'process.env.NODE_ENV': '"production"' } });
  await cp(`${root}static`, out, { recursive: true });
  let over = false;
  for (const [name, budget] of Object.entries(BUDGETS)) {
    const size = gzipSync(await readFile(`${out}/${name}`), { level: 9 }).length;
    over ||= size > budget;
    console.log(`${name}: ${size} of at most ${budget} bytes compressed`);
  }
  if (over) {
    console.error('dist/ is over its budget: load less, or remove something');
    process.exitCode = 1;
  }
}

if (process.argv[1] === new URL(import.meta.url).pathname) await main();
