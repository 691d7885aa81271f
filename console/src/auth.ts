// Sign-in: a token that is entered or part of the address, kept in sessionStorage; or the authorization code flow with
// PKCE, whose access token is kept in memory only. Its refresh token, which the issuer may replace at each use,
// survives a reload in sessionStorage.
import { signal } from '@preact/signals-core';
import { consolePath } from './base.ts';
import { tryJson } from './api/json.ts';
import { config, type OidcConfig } from './config.ts';
import { fetchText, unreachable } from './connection.ts';
import { challengeOf, claimsOf, randomText, rejectIdToken } from './oidc.ts';
import { texts } from './strings.ts';

const LOGIN = 'pennon.login';
const REFRESH = 'pennon.refresh';
const TOKEN = 'pennon.token';

/** What a sign-out removes from localStorage: the user ids and the contexts that somebody has entered. */
export const IDS = 'pennon.ids';
export const CONTEXTS = 'pennon.contexts';

/** Whether there is a token, or one can be requested. When this ends, the page keeps its contents until the next sign-in. */
export const signedIn = signal(false);
/** Why the last sign-in failed. */
export const loginError = signal<string | null>(null);

let token: string | null = null;
let idToken: string | null = null;
/** Whether the API has accepted a token since the last sign-in. */
let accepted = false;

export function accessToken(): string | null {
  return token;
}

/** Reads the token from the address, or resumes an earlier session. Runs before the first request. */
export async function startSession(): Promise<void> {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const given = fragment.get('token');
  // Nothing may read the token from the address bar or the history, even if it is not used.
  if (given !== null) history.replaceState(null, '', location.pathname + location.search);
  if (config.mode === 'token') {
    const known = given ?? sessionStorage.getItem(TOKEN);
    if (known) signInWithToken(known);
    return;
  }
  if (location.pathname === redirectPath()) await finishLogin(config);
  else if (sessionStorage.getItem(REFRESH)) {
    // If the issuer cannot be reached, the requests of the page try again.
    await renewToken().catch(() => {
      signedIn.value = true;
    });
  }
}

/** Signs in with a token that was entered or is in the address, such as the admin token of a local server. */
export function signInWithToken(value: string): void {
  token = value;
  loginError.value = null;
  sessionStorage.setItem(TOKEN, value);
  signedIn.value = true;
}

/** The API has accepted a request with this token. */
export function tokenAccepted(used: string | null): void {
  if (used === token) accepted = true;
}

/**
 * A request with this token was rejected with 401, and the token could not be renewed. If the answer arrives after
 * another sign-in, that one stays.
 */
export function sessionEnded(rejected: string | null): void {
  if (rejected !== token || !signedIn.value) return;
  // Without a token, a session was resumed: nobody has tried to sign in.
  if (token !== null && !accepted) loginError.value = texts.login.rejected;
  signedIn.value = accepted = false;
  token = null;
  sessionStorage.removeItem(TOKEN);
  // The API may reject a token that has just been renewed. The next person must not resume this session.
  sessionStorage.removeItem(REFRESH);
}

function redirectPath(): string {
  return `${consolePath}callback`;
}

/** Opens the sign-in page of the issuer, which redirects to `/console/callback`. */
export async function login(): Promise<void> {
  if (config.mode !== 'oidc') return;
  const state = randomText();
  const nonce = randomText();
  const verifier = randomText();
  const back = location.pathname === redirectPath() ? consolePath : location.pathname + location.search;
  sessionStorage.setItem(LOGIN, JSON.stringify({ state, nonce, verifier, back }));
  const query = new URLSearchParams({
    response_type: 'code',
    client_id: config.clientId,
    redirect_uri: location.origin + redirectPath(),
    scope: config.scope,
    state,
    nonce,
    code_challenge: await challengeOf(verifier),
    code_challenge_method: 'S256',
  });
  if (config.audience) query.set('audience', config.audience);
  location.assign(`${config.authorizationEndpoint}?${query}`);
}

async function finishLogin(oidc: OidcConfig): Promise<void> {
  const answer = new URLSearchParams(location.search);
  const started = sessionStorage.getItem(LOGIN);
  sessionStorage.removeItem(LOGIN);
  history.replaceState(null, '', consolePath);
  if (started === null) return;
  const { state, nonce, verifier, back } = JSON.parse(started) as Record<'state' | 'nonce' | 'verifier' | 'back', string>;
  const code = answer.get('code');
  if (answer.get('state') !== state) loginError.value = texts.login.errors.state;
  else if (code === null) loginError.value = answer.get('error_description') ?? answer.get('error') ?? texts.login.errors.noCode;
  else {
    const tokens = await requestTokens(oidc, {
      grant_type: 'authorization_code',
      code,
      redirect_uri: location.origin + redirectPath(),
      code_verifier: verifier,
    }).catch(() => null);
    const reason = tokens === null ? texts.login.errors.code
      : rejectIdToken(claimsOf(tokens.id_token), { issuer: oidc.issuer, clientId: oidc.clientId, nonce });
    if (reason !== null) loginError.value = reason;
    else if (tokens !== null) {
      keep(tokens);
      history.replaceState(null, '', back);
    }
  }
}

interface Tokens {
  access_token: string;
  id_token?: string;
  refresh_token?: string;
}

/** Returns null if the issuer rejects the grant. Fails if it cannot be reached, is overloaded or has a problem of its own. */
async function requestTokens(oidc: OidcConfig, grant: Record<string, string>): Promise<Tokens | null> {
  const [{ status }, text] = await fetchText(oidc.tokenEndpoint, {
    method: 'POST',
    body: new URLSearchParams({ ...grant, client_id: oidc.clientId }),
    credentials: 'omit',
  });
  // RFC 6749, section 5.2 names 400 and 401; Auth0 answers 403. After 408 and 429, the same grant may succeed.
  if (/^4(?!08|29)/.test(`${status}`)) return null;
  const tokens = tryJson(text) as Tokens | undefined;
  if (!tokens?.access_token) throw unreachable();
  return tokens;
}

function keep(tokens: Tokens): void {
  token = tokens.access_token;
  idToken = tokens.id_token ?? idToken;
  if (tokens.refresh_token) sessionStorage.setItem(REFRESH, tokens.refresh_token);
  signedIn.value = true;
}

let renewal: Promise<boolean> | null = null;

/** Requests that fail at the same time share one renewal: a rotated refresh token works only once. */
export function renewToken(): Promise<boolean> {
  renewal ??= renew().finally(() => {
    renewal = null;
  });
  return renewal;
}

async function renew(): Promise<boolean> {
  const refresh = sessionStorage.getItem(REFRESH);
  if (config.mode !== 'oidc' || refresh === null) return false;
  const tokens = await requestTokens(config, { grant_type: 'refresh_token', refresh_token: refresh });
  // Somebody may have signed out meanwhile.
  if (sessionStorage.getItem(REFRESH) !== refresh) return false;
  if (tokens === null) sessionStorage.removeItem(REFRESH);
  else keep(tokens);
  return tokens !== null;
}

export function logout(): void {
  // The next person does not get what this one has typed. After the end of a session, unsaved changes wait for the same
  // person.
  if (signedIn.value) sessionStorage.clear();
  localStorage.removeItem(IDS);
  localStorage.removeItem(CONTEXTS);
  // Loading the page again forgets what it shows, and messages that offer Undo.
  if (config.mode !== 'oidc' || !config.endSessionEndpoint) return location.reload();
  // Cognito reads client_id and logout_uri, other issuers the rest.
  const after = location.origin + consolePath;
  const query = new URLSearchParams({ client_id: config.clientId, logout_uri: after, post_logout_redirect_uri: after });
  if (idToken !== null) query.set('id_token_hint', idToken);
  location.assign(`${config.endSessionEndpoint}?${query}`);
}
