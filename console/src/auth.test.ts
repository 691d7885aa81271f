import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { accessToken, loginError, logout, renewToken, session, sessionEnded, tokenAccepted, useLocalToken } from './auth.ts';
import { loadConfig } from './config.ts';

const OIDC = { mode: 'oidc', tokenEndpoint: 'https://issuer/token' };

const stored = new Map<string, string>();
const sessionStorage = {
  getItem: (name: string) => stored.get(name) ?? null,
  setItem: (name: string, value: string) => void stored.set(name, value),
  removeItem: (name: string) => void stored.delete(name),
};
Object.assign(globalThis, { sessionStorage });

function answer(response: () => Response): void {
  globalThis.fetch = () => Promise.resolve().then(response);
}

beforeEach(() => logout());

test('only a rejection by the issuer deletes the refresh token', async () => {
  answer(() => Response.json(OIDC));
  await loadConfig();
  for (const [isKept, response] of [
    [true, () => { throw new TypeError('no network'); }],
    [true, () => new Response('bad gateway', { status: 502 })],
    [true, () => Response.json({ error: 'server_error' }, { status: 500 })],
    [true, () => Response.json({ error: 'slow_down' }, { status: 429 })],
    [false, () => Response.json({ error: 'invalid_grant' }, { status: 400 })],
    [false, () => Response.json({ error: 'invalid_grant' }, { status: 403 })],
  ] as [boolean, () => Response][]) {
    stored.set('pennon.refresh', 'r1');
    answer(response);
    assert.equal(await renewToken(), false);
    assert.equal(stored.has('pennon.refresh'), isKept, String(response));
  }
  stored.set('pennon.refresh', 'r1');
  answer(() => Response.json({ access_token: 'a2', refresh_token: 'r2' }));
  assert.equal(await renewToken(), true);
  assert.deepEqual([accessToken(), stored.get('pennon.refresh')], ['a2', 'r2']);
});

test('a wrong token after the end of a session is reported, and the page keeps its contents', () => {
  useLocalToken('first');
  tokenAccepted();
  sessionEnded('first');
  assert.deepEqual([session.value, loginError.value], ['ended', null]);
  // A request without a token.
  sessionEnded(null);
  assert.deepEqual([session.value, loginError.value], ['ended', null]);
  useLocalToken('wrong');
  sessionEnded('wrong');
  assert.equal(session.value, 'ended');
  assert.match(loginError.value ?? '', /did not accept/);
  useLocalToken('right');
  tokenAccepted();
  assert.deepEqual([session.value, loginError.value], ['in', null]);
});
