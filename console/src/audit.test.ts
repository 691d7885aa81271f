import assert from 'node:assert/strict';
import { test } from 'node:test';
import { canRevert, actionText, details, updateSentence, withoutOmitted, type AuditEntry } from './audit.ts';

const entry = (action: string, before: unknown, after: unknown): AuditEntry => ({
  id: 1, environment: 'staging', flagKey: 'beta', action, actor: 'alice', at: '2026-11-29T01:43:50.098Z', before, after,
});

test('an entry names the action and the values that changed', () => {
  const state = { enabled: true, rolloutPercentage: 5, description: null };
  const changed = entry('flag.update', state, { ...state, enabled: false, rolloutPercentage: 25 });
  assert.equal(actionText(changed), 'changed beta');
  assert.deepEqual(details(changed), ['Turned off', 'Rollout: 5 % → 25 %']);
  assert.deepEqual(details(entry('override.delete', { userId: 'bob' }, null)), ['User bob']);
  assert.deepEqual(details(entry('ramp.change', null, { state: 'rolledBack', percent: 0, reason: "alarm 'x' is in ALARM" })), ['rolled back', '0 %', "alarm 'x' is in ALARM"]);
  assert.deepEqual(details(entry('ramp.create', null, { state: 'pending', percent: 0, reason: null })), []);
});

test('nothing is said about an entry of which the response omits a state', () => {
  const omitted = { omittedBytes: 80_000 };
  for (const [before, after] of [[omitted, { enabled: true, rolloutPercentage: 5 }], [{ enabled: true }, omitted], [omitted, omitted]]) {
    const shown = withoutOmitted(entry('flag.update', before, after));
    assert.deepEqual([shown.before, shown.after, details(shown)], [undefined, undefined, []]);
    assert.equal(canRevert(shown, 'before'), true);
  }
  const created = withoutOmitted(entry('flag.create', null, omitted));
  assert.deepEqual([created.before, created.after], [null, undefined]);
  assert.equal(canRevert(created, 'before'), false);
  const other = entry('flag.update', { enabled: true }, { enabled: false });
  assert.equal(withoutOmitted(other), other);
});

test('an unknown action is shown by its name', () => {
  assert.equal(actionText(entry('flag.rename', null, null)), 'flag.rename beta');
  assert.deepEqual(details(entry('flag.rename', null, null)), []);
});

test('scheduled updates are a sentence', () => {
  assert.equal(updateSentence({ enabled: true, rolloutPercentage: 25 }), 'Turn on, Set the share: 25 %');
});

test('only entries that hold a state of the flag are offered for a revert', () => {
  assert.equal(canRevert(entry('flag.create', null, {}), 'before'), false);
  assert.equal(canRevert(entry('flag.create', null, {}), 'after'), true);
  assert.equal(canRevert(entry('override.set', null, { userId: 'bob' }), 'before'), true);
  assert.equal(canRevert(entry('ramp.create', {}, {}), 'before'), false);
  assert.equal(canRevert({ ...entry('flag.update', {}, {}), broken: {} }, 'before'), false);
});
