import assert from 'node:assert/strict';
import { test } from 'node:test';
import { flagPath, matchPath, pathBelow, withQuery } from './route.ts';

test('a pattern matches paths of its length and decodes parameters', () => {
  assert.deepEqual(matchPath('/:env/flags/:key', '/production/flags/a%20b'), { env: 'production', key: 'a b' });
  assert.equal(matchPath('/:env/flags', '/production/flags/a'), null);
  assert.equal(matchPath('/:env/flags', '/production/keys'), null);
  assert.deepEqual(matchPath('/compare', '/compare'), {});
});

test('a malformed percent-encoding matches nothing', () => {
  assert.equal(matchPath('/:env/flags', '/%zz/flags'), null);
});

test('an address below the base path loses it', () => {
  assert.equal(pathBelow('/prod/console/', '/prod/console/a/flags'), '/a/flags');
  assert.equal(pathBelow('/prod/console/', '/prod/console'), '/');
  assert.equal(pathBelow('/prod/console/', '/prod/consoles'), null);
  assert.equal(pathBelow('/console/', '/api/admin/me'), null);
});

test('empty query parameters are left out', () => {
  assert.equal(withQuery('/flags', { q: '', state: null, page: 2, on: true }), '/flags?page=2&on=true');
});

test('keys that a server could take for a path or a file are in the query', () => {
  assert.equal(flagPath('production', 'new-checkout'), '/production/flags/new-checkout');
  assert.equal(flagPath('production', 'checkout.v2'), '/production/flags/checkout.v2');
  assert.equal(flagPath('production', 'a/b', { tab: 'rules' }), '/production/flags/-?tab=rules&key=a%2Fb');
  for (const key of ['app.js', '..', '-', '50%', 'a?b', 'a#b']) assert.match(flagPath('x', key), /^\/x\/flags\/-\?key=/);
});
