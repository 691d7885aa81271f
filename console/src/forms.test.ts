import assert from 'node:assert/strict';
import { test } from 'node:test';
import { numberOf, withItem, matcherOf } from './forms.ts';

test('a search finds all its words in any order and case', () => {
  const matches = matcherOf('  New checkout ');
  assert.ok(matches('The checkout, renewed'));
  assert.ok(!matches('The checkout'));
  assert.ok(matcherOf('')('anything'));
});

test('a text that is not a number is left for the API to reject', () => {
  assert.deepEqual(['5', ' 0.5 ', '', ' ', 'five'].map(numberOf), [5, 0.5, '', ' ', 'five']);
});

test('an item of a list is replaced or removed', () => {
  const list = ['a', 'b', 'c'];
  assert.deepEqual(withItem(list, 1, 'x'), ['a', 'x', 'c']);
  assert.deepEqual(withItem(list, 1, undefined), ['a', 'c']);
  assert.deepEqual(list, ['a', 'b', 'c']);
});
