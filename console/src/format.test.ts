import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ago, duration } from './format.ts';

const now = Date.parse('2026-11-29T01:00:00Z');

test('moments are relative to now', () => {
  assert.equal(ago('2026-11-28T22:00:00.000Z', now), '3 hours ago');
  assert.equal(ago('2026-11-29T01:05:00.000Z', now), 'in 5 minutes');
});

test('a day is today, whatever the time is', () => {
  assert.equal(ago('2026-11-29', now), 'today');
  assert.equal(ago('2026-11-28', now), 'yesterday');
  assert.equal(ago('2026-11-29', Date.parse('2026-11-29T23:00:00Z')), 'today');
});

test('durations have at most two units', () => {
  assert.equal(duration(9_000), '2 h 30 min');
  assert.equal(duration(45), '45 s');
  assert.equal(duration(90_061), '1 d 1 h');
});
