// Which users a rollout percentage reaches: the same hashes as crates/pennon-eval, so that the console can say which
// users of a list a change moves. docs/targeting.md describes them.

export interface BucketInput {
  /** The flag's own, or the environment's. */
  bucketing: 'sha256' | 'fractional';
  /** The version of `fractional`. */
  fractional: 'v2' | 'v3';
  flagKey: string;
  salt: string | null;
}

const utf8 = new TextEncoder();

/** The bucket of a user, from 0 to 99. The user gets the flag if it is below the percentage. */
export async function bucketOf(userId: string, { bucketing, fractional, flagKey, salt }: BucketInput): Promise<number> {
  if (bucketing === 'sha256') {
    const hash = await crypto.subtle.digest('SHA-256', utf8.encode((salt ?? '') + userId));
    return new DataView(hash).getUint32(0) % 100;
  }
  const input = salt === null ? [flagKey, userId] : salt + userId;
  const bytes = fractional === 'v3' ? Uint8Array.from(cbor(input)) : utf8.encode(typeof input === 'string' ? input : input.join(''));
  return place(murmur3(bytes), 100);
}

/** (hash × sum) >> 32, without losing bits. */
export function place(hash: number, sum: number): number {
  return Number((BigInt(hash) * BigInt(sum)) >> 32n);
}

/** Deterministic CBOR (RFC 8949, 4.2) of a text or a list of texts. */
function cbor(value: string | string[]): number[] {
  if (typeof value !== 'string') return [...head(0x80, value.length), ...value.flatMap(cbor)];
  const text = utf8.encode(value);
  return [...head(0x60, text.length), ...text];
}

function head(major: number, length: number): number[] {
  if (length < 24) return [major | length];
  // Salts, new keys and ids have at most 255 characters; older ones are below 64 KiB.
  return length < 0x100 ? [major | 24, length] : [major | 25, length >> 8, length & 0xff];
}

/** MurmurHash3, 32 bits, seed 0. */
export function murmur3(bytes: Uint8Array): number {
  const mix = (block: number) => {
    const scrambled = Math.imul(block, 0xcc9e2d51);
    return Math.imul((scrambled << 15) | (scrambled >>> 17), 0x1b873593);
  };
  const blocks = bytes.length >> 2;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let hash = 0;
  for (let block = 0; block < blocks; block += 1) {
    hash ^= mix(view.getUint32(block * 4, true));
    hash = (hash << 13) | (hash >>> 19);
    hash = (Math.imul(hash, 5) + 0xe6546b64) | 0;
  }
  let tail = 0;
  for (let at = bytes.length - 1; at >= blocks * 4; at -= 1) tail = (tail << 8) | (bytes[at] ?? 0);
  hash ^= mix(tail) ^ bytes.length;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
