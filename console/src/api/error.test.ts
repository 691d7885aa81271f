import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errorOf, errorsShownAt } from './error.ts';

test('the message of an error is shown as it is', () => {
  const error = errorOf(412, { error: 'PRECONDITION_FAILED', message: 'The flag has changed' });
  assert.equal(error.message, 'The flag has changed');
  assert.equal(error.conflict, true);
});

test('messages are found at their pointer and at the pointers above', () => {
  const pointer = 'definition/targeting/if/1';
  const error = errorOf(400, {
    error: 'Validation failed',
    details: { formErrors: [], fieldErrors: { [pointer]: ['is not a variant'] } },
  });
  assert.deepEqual(errorsShownAt(error, pointer), ['is not a variant']);
  assert.deepEqual(errorsShownAt(error, 'definition/targeting'), ['if/1: is not a variant']);
  assert.deepEqual(errorsShownAt(error, 'definition/variants'), []);
  assert.match(error.message, /definition\/targeting\/if\/1: is not a variant/);
});

test('a form shows an error as a whole unless fields show all of it', () => {
  const error = errorOf(400, { error: 'Validation failed', details: { formErrors: [], fieldErrors: { key: ['is taken'], 'steps/0/percent': ['is over 100'] } } });
  errorsShownAt(error, 'key');
  errorsShownAt(error, 'step');
  assert.equal(error.isAtFields, false);
  errorsShownAt(error, 'steps/0');
  assert.equal(error.isAtFields, true);
  assert.equal(errorOf(403, { error: 'Forbidden' }).isAtFields, false);
});

test('a form shows an error as a whole if a part of it belongs to no field', () => {
  const error = errorOf(400, { error: 'Validation failed', details: { formErrors: ['7 more errors'], fieldErrors: { key: ['is taken'] } } });
  errorsShownAt(error, 'key');
  assert.equal(error.isAtFields, false);
  assert.equal(error.message, '7 more errors\nkey: is taken');
});

test('a response that is not an error of the API still names the status', () => {
  assert.match(errorOf(502, undefined).message, /502/);
});
