import assert from 'node:assert/strict';
import { test } from 'node:test';
import json from '../static/programs.json';
import { LANGUAGES, snippet, snippetType, type Programs } from './snippets.ts';

const programs = json as unknown as Programs;

const input = { url: 'http://127.0.0.1:9000', apiKey: 'pennon_server_production_x', flagKey: 'new "checkout" \\', type: 'boolean' } as const;

test('every language gets the address, the key and the quoted flag', () => {
  for (const language of LANGUAGES) {
    const text = snippet(programs[language], input);
    assert.ok(text.includes('"http://127.0.0.1:9000"'), language);
    assert.ok(text.includes('pennon_server_production_x'), language);
    assert.ok(text.includes('"new \\"checkout\\" \\\\"'), language);
    assert.doesNotMatch(text, /<(?!YourType)|undefined/, language);
  }
});

test('a client asks for the type of the variants', () => {
  assert.equal(snippetType([]), 'boolean');
  assert.equal(snippetType(['a', 'b']), 'string');
  assert.equal(snippetType([1, 2]), 'integer');
  assert.equal(snippetType([1, 2.5]), 'float');
  assert.equal(snippetType([{ a: 1 }]), 'object');
  assert.ok(snippet(programs.python, { ...input, type: 'float' }).includes('get_float_value'));
});
