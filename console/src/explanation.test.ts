import assert from 'node:assert/strict';
import { test } from 'node:test';
import { textOf, valueOf } from './api/json.ts';
import { stepSentence } from './explanation.ts';

test('a step says which values were compared', () => {
  const operands = [{ value: null }, { value: 'pro' }, { skipped: true as const }];
  assert.equal(stepSentence({ step: 'operation', pointer: '', operator: '==', depth: 0, operands, result: false }), '==: null, "pro", (no value) → false');
});

test('a split says the bucket and the limits', () => {
  const fractional = { bucket: 29, total: 100, variants: [{ variant: 'a', limit: 50 }, { variant: 'b', limit: 100 }] };
  assert.equal(
    stepSentence({ step: 'operation', pointer: '', operator: 'fractional', depth: 0, operands: [], result: 'a', fractional }),
    'fractional:  → "a" (bucket 29 of 100: a below 50, b below 100)',
  );
  assert.equal(stepSentence({ step: 'bucket', bucket: 7, percent: 5, result: false }), 'Bucket 7 of 100 is not below 5: off.');
});

test('every value survives its text in the form', () => {
  for (const value of ['alice', '42', 42, true, 'true', null, '', { id: 1 }, ['a']]) assert.deepEqual(valueOf(textOf(value)), value);
});
