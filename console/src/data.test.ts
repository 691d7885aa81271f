import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ApiError } from './api/error.ts';
import { Entry, entryOf } from './data.ts';

interface Call {
  ifNoneMatch: string | undefined;
  signal: AbortSignal | undefined;
  answer: (reply: { status: number; data: string; etag: string | undefined }) => void;
  fail: (error: unknown) => void;
}

function entry() {
  const calls: Call[] = [];
  const made = new Entry<string>('/x', ({ ifNoneMatch, signal }) => new Promise((answer, fail) => {
    calls.push({ ifNoneMatch, signal, answer, fail });
  }));
  const call = (index: number) => {
    const found = calls[index];
    assert.ok(found);
    return found;
  };
  return { made, call };
}

/** An entry whose first request has been answered with the data `a` and the tag `"1"`. */
async function loadedEntry() {
  const { made, call } = entry();
  const first = made.reload();
  call(0).answer({ status: 200, data: 'a', etag: '"1"' });
  await first;
  return { made, call };
}

test('a second request sends the tag of the first response, and 304 keeps the data', async () => {
  const { made, call } = await loadedEntry();
  const second = made.reload();
  assert.equal(call(1).ifNoneMatch, '"1"');
  call(1).answer({ status: 304, data: '', etag: '"1"' });
  await second;
  assert.equal(made.data.value, 'a');
});

test('the response to an earlier request does not replace the response to a later one', async () => {
  const { made, call } = entry();
  const old = made.reload();
  const next = made.reload();
  assert.equal(call(0).signal?.aborted, true);
  call(1).answer({ status: 200, data: 'changed', etag: '"2"' });
  await next;
  call(0).answer({ status: 200, data: 'old', etag: '"1"' });
  await old;
  assert.equal(made.data.value, 'changed');
  assert.equal(made.etag.value, '"2"');
});

test('a refresh does not abort the request that is under way', async () => {
  const { made, call } = entry();
  const first = made.reload();
  made.refresh();
  call(0).answer({ status: 200, data: 'a', etag: '"1"' });
  await first;
  assert.equal(made.data.value, 'a');
});

test('a failed refresh keeps the data, and the next response removes the error', async () => {
  const { made, call } = await loadedEntry();
  const failing = made.reload();
  call(1).fail(new ApiError(503, 'down'));
  await failing;
  assert.equal(made.data.value, 'a');
  assert.equal(made.error.value?.message, 'down');
  const working = made.reload();
  call(2).answer({ status: 200, data: 'b', etag: '"2"' });
  await working;
  assert.equal(made.data.value, 'b');
  assert.equal(made.error.value, undefined);
});

test('404 removes the data and its tag', async () => {
  const { made, call } = await loadedEntry();
  const gone = made.reload();
  call(1).fail(new ApiError(404, 'gone'));
  await gone;
  assert.equal(made.data.value, undefined);
  assert.equal(made.error.value?.status, 404);
  void made.reload();
  assert.equal(call(2).ifNoneMatch, undefined);
});

test('an entry that is used again is removed after those that are not', () => {
  const open = (url: string) => entryOf<null>(url, async () => ({ status: 200, data: null, etag: undefined }));
  const flag = open('/flag');
  for (let other = 1; other < 60; other += 1) open(`/other/${other}`);
  open('/flag');
  open('/tab');
  assert.equal(open('/flag'), flag);
});
