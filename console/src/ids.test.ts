import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIds } from './ids.ts';

test('ids are separated by lines or commas, and each counts once', () => {
  assert.deepEqual(parseIds(' alice\nbob, carol ,\r\n\nalice'), ['alice', 'bob', 'carol']);
  assert.deepEqual(parseIds('  '), []);
});
