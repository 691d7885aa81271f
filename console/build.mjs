// Writes dist/, which the function `console` embeds. Run it again after every change of src/ or static/: the files are
// committed, and CI fails if they differ from what this script writes.
import { build } from 'esbuild';
import { cp, rm, writeFile } from 'node:fs/promises';
import { basename, extname } from 'node:path';
import { gzipSync } from 'node:zlib';
import { minify } from 'terser';

const root = new URL('.', import.meta.url).pathname;

/**
 * The most bytes that a file may have after gzip, by its extension: an early check. functions/build.rs compresses better,
 * and a test in functions/src/console.rs has the limits of what is sent.
 */
const BUDGETS = { '.js': 46_500, '.css': 10_000 };

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
  const { outputFiles } = await build({
    ...options, outdir: out, write: false, minify: true, define: { 'process.env.NODE_ENV': '"production"' },
  });
  await rm(out, { recursive: true, force: true });
  await cp(`${root}static`, out, { recursive: true });
  for (const { path, text } of outputFiles) {
    const extension = extname(path);
    const short = extension === '.js' ? await shorten(text) : text;
    await writeFile(path, short);
    const size = gzipSync(short, { level: 9 }).length;
    console.log(`${basename(path)}: ${size} of at most ${BUDGETS[extension]} bytes compressed`);
    if (size > BUDGETS[extension]) {
      console.error('This is over the budget: remove something');
      process.exitCode = 1;
    }
  }
}

/**
 * Terser finds more than esbuild: about 6 % of the compressed size, most of it the names of texts (src/strings.ts).
 * `unsafe` assumes that nobody replaces built-in functions, and that a value reads the same in `${x}` and in `x + ''`.
 * Functions with parameters are not inlined: calls of them compress better than copies of their bodies.
 */
async function shorten(script) {
  const compress = { passes: 4, unsafe: true, unsafe_arrows: true, inline: 1, lhs_constants: false };
  const { code } = await minify(script, { module: true, ecma: 2020, compress });
  return code;
}

if (process.argv[1] === new URL(import.meta.url).pathname) await main();
