import assert from 'node:assert/strict';
import { test } from 'node:test';
import { challengeOf, claimsOf, randomText, rejectIdToken } from './oidc.ts';

test('the challenge is that of RFC 7636, appendix B', async () => {
  assert.equal(await challengeOf('dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk'), 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM');
});

test('random texts differ and fit into a query', () => {
  assert.notEqual(randomText(), randomText());
  assert.match(randomText(), /^[\w-]{72}$/);
});

test('an id token of another sign-in, issuer or application is rejected', () => {
  const expected = { issuer: 'https://issuer', clientId: 'console', nonce: 'n' };
  const claims = { iss: 'https://issuer', aud: 'console', nonce: 'n' };
  assert.equal(rejectIdToken(claims, expected), null);
  assert.equal(rejectIdToken({ ...claims, aud: ['other', 'console'] }, expected), null);
  assert.match(rejectIdToken({ ...claims, nonce: 'x' }, expected) ?? '', /another sign-in/);
  assert.match(rejectIdToken({ ...claims, iss: 'x' }, expected) ?? '', /another issuer/);
  assert.match(rejectIdToken({ ...claims, aud: 'x' }, expected) ?? '', /another application/);
  assert.match(rejectIdToken(claimsOf('garbage'), expected) ?? '', /no readable/);
});
