import assert from 'node:assert/strict';
import { test } from 'node:test';
import { flagPath, partsOf, pathBelow, withQuery } from './route.ts';

test('the parts of a path are decoded', () => {
  assert.deepEqual(partsOf('/production/flags/a%20b%2Fc'), ['production', 'flags', 'a b/c']);
  assert.deepEqual(partsOf('/compare/'), ['compare']);
  assert.deepEqual(partsOf('/'), []);
});

test('a path with a malformed percent-encoding has no parts', () => {
  assert.deepEqual(partsOf('/%zz/flags'), []);
});

test('the base path is removed from an address below it', () => {
  assert.equal(pathBelow('/prod/console/', '/prod/console/a/flags'), '/a/flags');
  assert.equal(pathBelow('/prod/console/', '/prod/console'), '/');
  assert.equal(pathBelow('/prod/console/', '/prod/consoles'), null);
  assert.equal(pathBelow('/console/', '/api/admin/me'), null);
});

test('empty query parameters are left out', () => {
  assert.equal(withQuery('/flags', { q: '', state: null, page: 2, on: true }), '/flags?page=2&on=true');
});

test('a key is in the query if it could change the path, ends like a file or is the placeholder', () => {
  assert.equal(flagPath('production', 'new-checkout'), '/production/flags/new-checkout');
  assert.equal(flagPath('production', 'checkout.v2'), '/production/flags/checkout.v2');
  assert.equal(flagPath('production', 'a/b', { tab: 'rules' }), '/production/flags/-?tab=rules&key=a%2Fb');
  for (const key of ['app.js', '..', '-', '50%', 'a?b', 'a#b']) assert.match(flagPath('x', key), /^\/x\/flags\/-\?key=/);
});
