// The parts of the authorization code flow that need no page: PKCE and the checks of an id token.
import { texts } from './strings.ts';

function base64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

/** 244 random bits, for state, nonce and the code verifier. */
export function randomText(): string {
  return crypto.randomUUID() + crypto.randomUUID();
}

/** The code challenge of a verifier (RFC 7636, S256). */
export async function challengeOf(verifier: string): Promise<string> {
  return base64url(new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier))));
}

/** The claims of a token, not verified: it came from the issuer over TLS. Null if it is not a token. */
export function claimsOf(token: string | undefined): Record<string, unknown> | null {
  try {
    const payload = token?.split('.')[1] ?? '';
    const bytes = Uint8Array.from(atob(payload.replaceAll('-', '+').replaceAll('_', '/')), (char) => char.charCodeAt(0));
    const claims: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return typeof claims === 'object' ? (claims as Record<string, unknown> | null) : null;
  } catch {
    return null;
  }
}

/** Why an id token does not belong to this sign-in; null if it does. */
export function rejectIdToken(
  claims: Record<string, unknown> | null,
  expected: { issuer: string; clientId: string; nonce: string },
): string | null {
  if (claims === null) return texts.login.errors.noToken;
  const audiences = Array.isArray(claims['aud']) ? claims['aud'] : [claims['aud']];
  if (claims['iss'] !== expected.issuer) return texts.login.errors.issuer(String(claims['iss']));
  if (!audiences.includes(expected.clientId)) return texts.login.errors.audience;
  if (claims['nonce'] !== expected.nonce) return texts.login.errors.nonce;
  return null;
}
