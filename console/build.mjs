// Writes dist/, which the function `console` embeds. Run it again after every change of src/ or static/: the files are
// committed, and CI fails if they differ from what this script writes.
import { build } from 'esbuild';
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { minify } from 'terser';

const root = new URL('.', import.meta.url).pathname;

/** Bytes of a file compressed with gzip that no build may exceed. */
const BUDGETS = { 'app.js': 51_000, 'app.css': 10_000 };

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
  // Shorter than the calls of the automatic runtime, which the type checker uses (tsconfig.json).
  jsx: 'transform',
  jsxFactory: 'h',
  jsxFragment: 'Fragment',
  inject: ['src/jsx.ts'],
  tsconfigRaw: {},
  charset: 'utf8',
  legalComments: 'none',
  logLevel: 'warning',
};

async function main() {
  const out = `${root}dist`;
  await rm(out, { recursive: true, force: true });
  await mkdir(out);
  await build({ ...options, outdir: out, minify: true, define: { 'process.env.NODE_ENV': '"production"' } });
  // It finds more to shorten than esbuild: about 3 % of the compressed size.
  const script = await minify(await readFile(`${out}/app.js`, 'utf8'), {
    module: true,
    ecma: 2020,
    compress: { passes: 3, unsafe_arrows: true },
  });
  await writeFile(`${out}/app.js`, script.code);
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
