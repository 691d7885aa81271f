// A request as a command for a shell.

export interface ShownRequest {
  method: string;
  url: string;
  ifMatch?: string | undefined;
  body?: unknown;
}

/** The token is a variable, so that the command can be pasted into a chat. */
export function curl({ method, url, ifMatch, body }: ShownRequest): string {
  const parts = ['curl'];
  if (method !== 'GET') parts.push(`-X ${method}`);
  parts.push(quote(url), '-H "Authorization: Bearer $PENNON_ADMIN_TOKEN"');
  if (ifMatch !== undefined) parts.push(`-H ${quote(`If-Match: ${ifMatch}`)}`);
  if (body !== undefined) parts.push(`-d ${quote(JSON.stringify(body))}`);
  return parts.join(' \\\n  ');
}

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
