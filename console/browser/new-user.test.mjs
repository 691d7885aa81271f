// What a new user does first in an empty installation, from the start page and without typing a URL.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { useConsole } from './browser.mjs';
import { Installation } from './services.mjs';

describe('a new user', () => {
  const installation = new Installation();
  const open = useConsole(installation);

  it('creates a flag, ramps it with a guard, explains a value, copies the flag to production, and rolls back a ramp there', async () => {
    const person = await open('');
    const ramp = async () => {
      await person.press('button', 'Add guard');
      await person.by('textbox', 'Alarm name or ARN').fill('checkout-errors');
      await person.assertAccessible('the form of a ramp');
      await person.press('button', 'Start a ramp');
    };
    await person.by('heading', 'Flags of production').waitFor();
    await person.assertAccessible('the start page');
    await person.press('link', 'Settings');
    await person.by('textbox', 'Name').fill('staging');
    await person.press('button', 'Create an environment');
    await person.by('heading', 'Flags of staging').waitFor();

    await person.press('button', 'Create flag');
    await person.by('textbox', 'Key').fill('new-checkout');
    await person.by('textbox', 'Description').fill('The checkout in one step');
    await person.by('checkbox', 'Turn it on at once').check();
    await person.assertAccessible('the form of a flag');
    await person.press('button', 'Create', { exact: true });
    await person.sees('In staging: off for everyone (0 %).');
    await person.press('button', 'Ramp it instead');
    await ramp();
    await person.confirm('Start a ramp');
    await person.sees('The ramp is running at 1 %.');
    await person.sees('In staging: 1 % of users.');

    await person.press('link', 'Explain');
    await person.by('textbox', 'Value').fill('alice');
    await person.press('button', 'Explain', { exact: true });
    const { path } = await installation.api('POST', '/api/admin/flags/new-checkout/explain?environment=staging', { context: { targetingKey: 'alice' } });
    const { bucket } = path.find(({ step }) => step === 'bucket');
    await person.sees(bucket < 1 ? `Bucket ${bucket} of 100 is below 1: on.` : `Bucket ${bucket} of 100 is not below 1: off.`);
    await person.assertAccessible('an explanation');

    await person.press('button', 'Copy to production…');
    await person.press('button', 'Copy 1 flag');
    await person.by('dialog').getByText('This is production.').waitFor();
    await person.confirm('Copy');
    await person.sees('1 flag copied to production.');
    await person.by('combobox', 'Environment').selectOption('production');
    await person.press('link', 'new-checkout');
    await person.sees('In production: 1 % of users.');

    await person.press('link', 'Ramp & schedule');
    await ramp();
    await person.by('dialog').getByText('This is production.').waitFor();
    await person.by('dialog').getByText('The first step brings it to 5 %.').waitFor();
    await person.confirm('Start a ramp');
    await person.sees('The ramp is running at 5 %.');
    await person.press('button', 'Roll back');
    await person.confirm('Roll back');
    await person.sees('The ramp is rolled back at 1 %.');
    await person.sees('In production: 1 % of users.');
    await person.assertAccessible('a ramp that was rolled back');
    const shares = ['staging', 'production'].map(async (env) => (await installation.flag(env, 'new-checkout')).rolloutPercentage);
    assert.deepEqual(await Promise.all(shares), [1, 1]);
    await person.press('link', 'History');
    await person.by('listitem').filter({ hasText: 'rolled back new-checkout' }).filter({ hasText: 'Rollout: 5 % → 1 %' }).waitFor();
    await person.leave();
  });
});
