import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bucketOf, murmur3, place, type BucketInput } from './bucketing.ts';

const users = ['alice', 'bob', 'ä', '😀', 'user-123', 'x'.repeat(30), 'y'.repeat(255), 'ü'.repeat(120)];

/** Recorded from the server: the percentage at which each user got the flag `vector`, less one. */
const recorded: readonly (readonly [BucketInput['bucketing'], BucketInput['fractional'], string | null, number[]])[] = [
  ['sha256', 'v3', null, [1, 12, 99, 88, 35, 41, 17, 9]],
  ['sha256', 'v3', 'spring', [22, 41, 31, 24, 56, 11, 28, 21]],
  ['sha256', 'v3', 'ä'.repeat(50), [67, 33, 33, 14, 42, 24, 45, 51]],
  ['fractional', 'v3', null, [65, 63, 68, 6, 69, 49, 38, 36]],
  ['fractional', 'v3', 'spring', [17, 31, 10, 6, 4, 14, 91, 44]],
  ['fractional', 'v3', 'ä'.repeat(50), [15, 48, 53, 2, 10, 3, 52, 5]],
  ['fractional', 'v2', null, [57, 55, 88, 12, 40, 13, 71, 49]],
  ['fractional', 'v2', 'spring', [34, 60, 26, 2, 44, 2, 16, 33]],
  ['fractional', 'v2', 'ä'.repeat(50), [90, 69, 55, 14, 28, 11, 49, 25]],
];

test('buckets equal those of the server', async () => {
  for (const [bucketing, fractional, salt, buckets] of recorded) {
    for (const [index, user] of users.entries()) {
      const bucket = await bucketOf(user, { bucketing, fractional, flagKey: 'vector', salt });
      assert.equal(bucket, buckets[index], `${bucketing} ${fractional} ${salt} ${user}`);
    }
  }
});

test('the hash is MurmurHash3', () => {
  const hash = (text: string) => murmur3(new TextEncoder().encode(text));
  assert.equal(hash(''), 0);
  assert.equal(hash('hello'), 0x248bfa47);
  assert.equal(hash('hello, world'), 0x149bbb7f);
});

test('the highest hash is in the last place', () => {
  assert.equal(place(0xffffffff, 100), 99);
  assert.equal(place(0, 100), 0);
});
