import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseJson, valueOf } from './json.ts';

const keepsDigits = 'rawJSON' in JSON;

test('numbers that JavaScript holds stay numbers', () => {
  assert.deepEqual(parseJson('{"a": 1.50, "b": [1e3, -7], "c": "9007199254740993"}'), { a: 1.5, b: [1000, -7], c: '9007199254740993' });
});

test('a 64-bit number is written as it was read', { skip: !keepsDigits }, () => {
  assert.equal(JSON.stringify(parseJson('{"a":9007199254740993}')), '{"a":9007199254740993}');
});

test('a field keeps a 64-bit number', { skip: !keepsDigits }, () => {
  assert.equal(JSON.stringify(valueOf('9007199254740993')), '9007199254740993');
});

test('text that is not valid JSON fails', () => {
  assert.throws(() => parseJson('{'));
});
