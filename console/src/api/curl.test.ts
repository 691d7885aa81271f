import assert from 'node:assert/strict';
import { test } from 'node:test';
import { curl } from './curl.ts';

test('a command quotes characters that a shell interprets', () => {
  const command = curl({ method: 'PATCH', url: 'http://x/a?b=c', ifMatch: '"7"', body: { description: "it's" } });
  assert.match(command, /-X PATCH/);
  assert.match(command, /-H 'If-Match: "7"'/);
  assert.match(command, /it'\\''s/);
  assert.doesNotMatch(curl({ method: 'GET', url: 'http://x' }), /-X/);
});
