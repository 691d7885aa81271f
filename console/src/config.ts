// What the server says about itself: config.json, next to the scripts.
import { consolePath } from './base.ts';

interface Common {
  /** Environments that are marked as production. */
  production?: string[];
}
export interface TokenConfig extends Common {
  mode: 'token';
}
export interface OidcConfig extends Common {
  mode: 'oidc';
  issuer: string;
  clientId: string;
  authorizationEndpoint: string;
  tokenEndpoint: string;
  endSessionEndpoint?: string | null;
  scope: string;
  audience?: string | null;
}
export type Config = TokenConfig | OidcConfig;

export let config: Config = { mode: 'token' };

/** index.html preloads config.json. Only a request without options uses the preloaded response. */
export async function loadConfig(): Promise<void> {
  const response = await fetch(`${consolePath}config.json`);
  if (!response.ok) throw new Error(`config.json: status ${response.status}`);
  config = (await response.json()) as Config;
}

export const productionNames = () => config.production ?? ['production'];

export function isProduction(environment: string): boolean {
  return productionNames().includes(environment);
}
