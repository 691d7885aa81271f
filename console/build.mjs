// Writes dist/, which the function `console` embeds. Run it again after every change of src/ or static/: the files are
// committed, and CI fails if they differ from what this script writes.
import { build } from 'esbuild';
import { cp, rm, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { gzipSync } from 'node:zlib';
import { minify } from 'terser';

const root = new URL('.', import.meta.url).pathname;

/** Bytes compressed with gzip that a page may load, by file extension. */
const BUDGETS = { js: 42_000, css: 10_000 };
/** The same of all scripts together. */
const ALL_SCRIPTS = 56_500;

/** The options that the development server shares. */
export const options = {
  absWorkingDir: root,
  entryPoints: [
    { in: 'src/main.tsx', out: 'app' },
    { in: 'src/styles/app.css', out: 'app' },
  ],
  bundle: true,
  splitting: true,
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

/** The files that the build writes, by name, each with what it imports. */
async function bundle() {
  const { outputFiles, metafile } = await build({
    ...options, outdir: 'dist', write: false, minify: true, metafile: true, define: { 'process.env.NODE_ENV': '"production"' },
  });
  const files = new Map(outputFiles.map(({ path, text }) => [basename(path), { text, imports: [] }]));
  for (const [path, { imports }] of Object.entries(metafile.outputs)) {
    files.get(basename(path)).imports = imports.map((entry) => ({ ...entry, path: basename(entry.path) }));
  }
  // Code that app.js and the parts (src/parts) share is in a file of its own, and app.js imports it. It becomes app.js,
  // which saves a request before the first paint.
  const [{ path: shared }, ...more] = files.get('app.js').imports;
  if (more.length > 0) throw new Error('app.js imports more than one file: see src/parts/lazy.tsx');
  files.set('app.js', files.get(shared));
  files.delete(shared);
  const rename = (name) => (name === shared ? 'app.js' : name);
  for (const [name, file] of files) {
    file.text = file.text.replaceAll(`./${shared}`, './app.js');
    file.imports = file.imports.map((entry) => ({ ...entry, path: rename(entry.path) }));
    // It finds more to shorten than esbuild: about 3 % of the compressed size.
    if (name.endsWith('.js')) file.text = (await minify(file.text, { module: true, ecma: 2020, compress: { passes: 3, unsafe_arrows: true } })).code;
    file.size = gzipSync(file.text, { level: 9 }).length;
  }
  return files;
}

/** What a page loads that shows one part: the file of the part, and all files that it imports. */
function loadedBy(files, name, found = new Set([name])) {
  for (const { path, kind } of files.get(name).imports) {
    if (kind === 'import-statement' && !found.has(path)) loadedBy(files, path, found.add(path));
  }
  return found;
}

async function main() {
  const out = `${root}dist`;
  const files = await bundle();
  await rm(out, { recursive: true, force: true });
  await cp(`${root}static`, out, { recursive: true });
  for (const [name, { text }] of files) await writeFile(`${out}/${name}`, text);
  const check = (what, names, budget) => {
    const size = names.reduce((sum, name) => sum + files.get(name).size, 0);
    console.log(`${what}: ${size} of at most ${budget} bytes compressed`);
    if (size > budget) {
      console.error('This is over the budget: load less, or remove something');
      process.exitCode = 1;
    }
  };
  for (const name of files.keys()) {
    const loaded = [...loadedBy(files, name)];
    check(loaded.join(' + '), loaded, BUDGETS[name.split('.').at(-1)]);
  }
  check('all scripts', [...files.keys()].filter((name) => name.endsWith('.js')), ALL_SCRIPTS);
}

if (process.argv[1] === new URL(import.meta.url).pathname) await main();
