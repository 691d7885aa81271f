import assert from 'node:assert/strict';
import { test } from 'node:test';
import { changeSentences, cohortSentence, evaluationsSentence, rolloutSentence, stateSentence, type FlagSummary } from './sentences.ts';

const simple: FlagSummary = { enabled: true, rolloutPercentage: 5, variants: null, hasTargeting: false, defaultVariant: null, archived: false };

test('a state says what users get', () => {
  assert.equal(stateSentence(simple), '5 % of users');
  assert.equal(stateSentence({ ...simple, rolloutPercentage: 100 }), 'on for everyone');
  assert.equal(stateSentence({ ...simple, enabled: false }), 'off');
  assert.equal(stateSentence({ ...simple, variants: 3, hasTargeting: true }), '3 variants by rule');
  assert.equal(stateSentence({ ...simple, variants: 2, defaultVariant: 'red' }), 'red for everyone');
  assert.equal(stateSentence({ ...simple, archived: true }), 'archived');
});

test('a change of the rollout names flag, environment and share', () => {
  assert.equal(rolloutSentence('new-checkout', 5, 25, 'production'), 'Raise new-checkout from 5 % to 25 % in production.');
  assert.equal(cohortSentence(5, 25, false), 'About 1 in 5 of all users newly get it.');
  assert.equal(cohortSentence(25, 5, false), 'About 1 in 5 of all users lose it.');
  assert.equal(cohortSentence(0, 100, false), 'Everyone gets it.');
  assert.equal(cohortSentence(10, 50, false), 'About 40 % of all users newly get it.');
  assert.equal(cohortSentence(5, 5, false), 'No user gets or loses it.');
  assert.match(cohortSentence(5, 5, true), /^This chooses other users/, 'another salt is not shown to choose other users');
  assert.equal(evaluationsSentence(1_240), '1,240 evaluations in the last hour or two.');
  assert.equal(evaluationsSentence(null), '');
});

test('a conflict names the fields that differ', () => {
  const before = { enabled: true, rolloutPercentage: 5, description: null, salt: null, bucketing: null, definition: null };
  assert.deepEqual(changeSentences(before, before), []);
  assert.deepEqual(changeSentences(before, { ...before, enabled: false, rolloutPercentage: 9, description: 'x' }), [
    'Turned off', 'Rollout: 5 % → 9 %', 'Description: “x”',
  ]);
  assert.deepEqual(changeSentences(before, { ...before, bucketing: 'sha256' }), ['Buckets: sha256']);
  assert.deepEqual(changeSentences({ ...before, bucketing: 'sha256' }, before), ['Buckets: as set for the environment']);
});
