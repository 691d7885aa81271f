// Runs the unit tests: bundles each `*.test.ts` of src/ and gives the result to Node's test runner.
import { build } from 'esbuild';
import { spawnSync } from 'node:child_process';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const root = new URL('.', import.meta.url).pathname;
const tests = (await readdir(`${root}src`, { recursive: true })).filter((name) => /\.test\.tsx?$/.test(name)).sort();
const out = await mkdtemp(join(tmpdir(), 'pennon-console-'));
try {
  await build({
    absWorkingDir: root,
    entryPoints: tests.map((name) => `src/${name}`),
    outdir: out,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    jsx: 'automatic',
    jsxImportSource: 'preact',
    logLevel: 'warning',
  });
  const files = (await readdir(out, { recursive: true })).filter((name) => name.endsWith('.mjs')).sort();
  process.exitCode = spawnSync(process.execPath, ['--test', ...files.map((name) => join(out, name))], { stdio: 'inherit' }).status ?? 1;
} finally {
  await rm(out, { recursive: true });
}
