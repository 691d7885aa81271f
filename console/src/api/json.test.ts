import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isObject, parseJson, sameJson, valueOf } from './json.ts';

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

test('a 64-bit number is no object, and equals itself', { skip: !keepsDigits }, () => {
  const [one, same, other] = ['9007199254740993', '9007199254740993', '9007199254740995'].map(valueOf);
  assert.equal(isObject(one), false);
  assert.equal(sameJson(one, same), true);
  assert.equal(sameJson(one, other), false);
});

test('arrays are compared by item, and objects without regard to the order of their fields', () => {
  assert.equal(sameJson([1, { a: null, b: [] }], [1, { b: [], a: null }]), true);
  assert.equal(sameJson([], {}), false);
  assert.equal(sameJson([1], [1, 2]), false);
  assert.equal(sameJson(null, {}), false);
  assert.equal(isObject(null), false);
  assert.equal(isObject([]), false);
});
