import assert from 'node:assert/strict';
import { test } from 'node:test';
import { diffLines } from './diff.ts';

const shown = (before: string, after: string) =>
  diffLines(before, after).map(({ kind, text }) => `${{ same: ' ', added: '+', removed: '-' }[kind]}${text}`);

test('unchanged lines stay between removed and added ones', () => {
  assert.deepEqual(shown('a\nb\nc\nd', 'a\nx\nc\ny\nd'), [' a', '-b', '+x', ' c', '+y', ' d']);
});

test('a text against nothing is added or removed as a whole', () => {
  assert.deepEqual(shown('', 'a\nb'), ['+a', '+b']);
  assert.deepEqual(shown('a', ''), ['-a']);
  assert.deepEqual(shown('a', 'a'), [' a']);
});

test('texts too large to compare are shown one after the other', () => {
  const before = Array.from({ length: 2_100 }, (_, index) => `a${index}`).join('\n');
  const after = Array.from({ length: 2_100 }, (_, index) => `b${index}`).join('\n');
  assert.equal(diffLines(before, after).length, 4_200);
});
