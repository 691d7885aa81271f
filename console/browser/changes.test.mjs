// Journeys over ramps, schedules, the history of a flag, and the explanation of a value.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { useConsole } from './browser.mjs';
import { eventually, Installation } from './services.mjs';

describe('changes', { concurrency: 2 }, () => {
  const installation = new Installation();
  const open = useConsole(installation);

  it('ramps a flag from a template, controls the ramp, and shows that its alarm has rolled it back', async () => {
    const env = await installation.environment('ramps');
    await installation.createFlag(env, { key: 'checkout', enabled: true, rolloutPercentage: 2 });
    const ramp = () => installation.api('GET', `/api/admin/flags/checkout/ramp?environment=${env}`);
    const expected = [/^400 POST \/api\/admin\/flags\/checkout\/ramp$/, /^412 POST \/api\/admin\/flags\/checkout\/ramp\/pause$/];
    await installation.createFlag(env, { key: 'complete', enabled: true, rolloutPercentage: 100 });
    const person = await open(`/${env}/flags/complete?tab=ramp`, { expected });
    await person.by('button', 'Start a ramp').and(person.page.locator('[aria-disabled=true]')).waitFor();
    await person.sees('The share is 100 % already: lower it first');
    await person.go(`/${env}/flags/checkout?tab=ramp`);
    const steps = person.page.locator('ol.steps > li');
    const control = async (action, sentence) => {
      await person.press('button', action, { exact: true });
      await person.confirm(action);
      await person.by('status').getByText(sentence, { exact: true }).waitFor();
    };
    await person.by('combobox', 'Template').selectOption({ label: '10 · 50 · 100 %' });
    await person.press('button', 'Add guard');
    await person.by('textbox', 'Alarm name or ARN').fill('checkout-errors');
    await person.by('textbox', 'Bake time in minutes').first().fill('-1');
    await person.press('button', 'Start a ramp');
    await person.by('dialog').getByText('The first step brings it to 10 %.').waitFor();
    await person.confirm('Start a ramp');
    await person.by('textbox', 'Bake time in minutes').first().and(person.page.locator('[aria-invalid=true]')).waitFor();
    await person.by('textbox', 'Bake time in minutes').first().fill('20');
    await person.assertAccessible('the form of a ramp');
    await person.press('button', 'Start a ramp');
    await person.confirm('Start a ramp');

    await person.sees('The ramp is running at 10 %.');
    assert.deepEqual((await ramp()).steps.map(({ percent, bakeSeconds }) => [percent, bakeSeconds]), [[10, 1200], [50, 3600], [100, 3600]]);
    assert.match((await steps.first().textContent()), /^now 10 %, then watched for 20 min · .*Next step: in (20|19) minutes/);
    assert.match((await steps.nth(2).textContent()), /^planned 100 %, then watched for 1 h$/);
    await person.by('listitem').filter({ hasText: 'checkout-errors' }).getByText('Without data: wait').waitFor();
    await person.assertAccessible('a ramp');
    await control('Pause', 'The ramp is paused at 10 %.');
    assert.equal((await ramp()).state, 'paused');
    await control('Resume', 'The ramp is running at 10 %.');
    await control('Advance', 'The ramp is running at 50 %.');
    assert.match((await steps.first().textContent()), /^done 10 %/);
    assert.match((await steps.nth(1).textContent()), /^now 50 %/);
    assert.equal((await installation.flag(env, 'checkout')).rolloutPercentage, 50);

    // Another person advances the ramp while this one is asked whether to pause it.
    await person.press('button', 'Pause');
    await installation.api('POST', `/api/admin/flags/checkout/ramp/advance?environment=${env}`, undefined, { 'if-match': '*' });
    await person.confirm('Pause');
    const conflict = person.by('alert', 'This has changed in the meantime');
    await conflict.getByText('The ramp is running at 100 %.').waitFor();
    assert.equal((await ramp()).state, 'baking');
    await conflict.getByRole('button', { name: 'Apply mine on top' }).click();
    await person.sees('The ramp is paused at 100 %.');
    await control('Resume', 'The ramp is running at 100 %.');

    await person.press('link', 'Rollout');
    await person.sees('A ramp is running. Saving here ends it.');
    assert.equal((await installation.setAlarm('checkout-errors', 'ALARM')).rolledBack, 1);
    // Every tab shows it without being loaded again.
    await person.page.getByText('A ramp is running. Saving here ends it.').waitFor({ state: 'detached', timeout: 60_000 });
    await person.press('link', 'Ramp & schedule');
    await person.by('status').getByText('The ramp is rolled back at 2 %.').waitFor();
    await person.sees('A ramp was rolled back. Until someone acknowledges that, most changes of the flag are rejected');
    assert.equal((await installation.flag(env, 'checkout')).rolloutPercentage, 2);
    await person.by('listitem').filter({ hasText: "alarm 'checkout-errors' is in ALARM" }).first().waitFor();
    await person.assertAccessible('a ramp that was rolled back');
    assert.match((await steps.nth(1).textContent()), /^done 50 %/);
    assert.match((await steps.nth(2).textContent()), /^ 100 %/);
    // An archived flag keeps the tab until the rollback is acknowledged: it cannot be deleted before.
    await installation.api('DELETE', `/api/admin/flags/checkout?environment=${env}`, undefined, { 'if-match': '*' });
    await person.page.goto(`${installation.url}/console/${env}/flags/checkout?tab=history`);
    await person.press('link', 'Open the ramp');
    await person.by('button', 'Acknowledge').waitFor();
    await person.press('button', 'Restore');
    await person.sees('checkout was restored, turned off.');
    await control('Acknowledge', 'The ramp is rolled back at 2 %.');
    await person.sees('Acknowledged by local-admin.');
    await person.seesNo('A ramp was rolled back. Until someone acknowledges that, most changes of the flag are rejected');
    assert.equal((await ramp()).acknowledgedBy, 'local-admin');
    assert.equal((await installation.flag(env, 'checkout')).archivedAt, null);
    await person.press('button', 'Start another ramp');
    await person.by('combobox', 'Template').waitFor();
    await person.leave();
  });

  it('schedules two changes, cancels one, and shows the results', async () => {
    const env = await installation.environment('schedules');
    await installation.createFlag(env, { key: 'sale', enabled: false, rolloutPercentage: 10 });
    const schedules = () => installation.api('GET', `/api/admin/flags/sale/schedule?environment=${env}`);
    const person = await open(`/${env}/flags/sale?tab=ramp`, { expected: [/^400 POST \/api\/admin\/flags\/sale\/schedule$/] });
    const items = person.page.locator('ul.audit > li');
    await person.sees('No change is scheduled.');
    const time = person.page.getByLabel('Time', { exact: true });
    await person.press('button', 'Schedule', { exact: true });
    await time.and(person.page.locator('[aria-invalid=true]')).waitFor();
    // The person's time zone is Berlin's.
    await time.fill('2030-07-01T09:30');
    await person.sees('In your time zone (CEST).');
    await person.press('button', 'Schedule', { exact: true });
    await person.sees(/Scheduled: Turn on, 1 Jul 2030, 09:30 CEST\./);
    await person.by('combobox', 'Change').selectOption({ label: 'Set the share' });
    await person.by('spinbutton', '%').fill('30');
    await time.fill('2030-07-02T00:00');
    await person.press('button', 'Schedule', { exact: true });
    await items.nth(1).waitFor();
    const planned = (await schedules()).map(({ scheduledAt, updates }) => [Date.parse(scheduledAt), updates]);
    assert.deepEqual(planned.sort(([a], [b]) => a - b), [
      [Date.parse('2030-07-01T07:30:00Z'), { enabled: true }],
      [Date.parse('2030-07-01T22:00:00Z'), { rolloutPercentage: 30 }],
    ]);
    await person.assertAccessible('schedules');

    const first = items.filter({ hasText: 'Turn on' });
    await first.getByRole('button', { name: 'Cancel' }).click();
    await person.by('dialog').getByRole('button', { name: 'Cancel', exact: true }).first().click();
    await person.sees('The scheduled change was cancelled.');
    await first.getByText('cancelled', { exact: true }).waitFor();
    assert.equal((await schedules()).find(({ updates }) => updates.enabled).status, 'cancelled');
    // The other change becomes due.
    installation.sql(`update feature_flag_schedules set scheduled_at = now() where status = 'pending'`);
    await eventually(async () => (await installation.flag(env, 'sale')).rolloutPercentage === 30, () => 'the change is not made');
    assert.equal((await installation.flag(env, 'sale')).enabled, false);
    // The page shows it without being loaded again.
    await items.filter({ hasText: 'Set the share: 30 %' }).getByText('applied', { exact: true }).waitFor({ timeout: 30_000 });
    await person.go(`/${env}/flags/sale?tab=history`);
    await person.by('listitem').filter({ hasText: 'changed on schedule sale' }).filter({ hasText: 'Rollout: 10 % → 30 %' }).waitFor();
    await person.leave();
  });

  it('shows who changed a flag, and reverts a change unless the flag changes during the confirmation', async () => {
    const env = await installation.environment('history');
    const change = (body) => installation.api('PATCH', `/api/admin/flags/banner?environment=${env}`, body);
    await installation.createFlag(env, { key: 'banner', enabled: false, rolloutPercentage: 5 });
    await installation.createFlag(env, { key: 'other', enabled: false });
    await change({ rolloutPercentage: 20 });
    await change({ enabled: true, description: 'The banner' });
    const person = await open(`/${env}/flags/banner?tab=history`, { expected: [/^412 POST \/api\/admin\/flags\/banner\/revert$/] });
    const entries = person.page.locator('ol.audit > li');
    const share = entries.filter({ hasText: 'Rollout: 5 % → 20 %' });
    await share.getByText('local-admin').waitFor();
    assert.equal(await entries.count(), 3);
    await share.getByText('Difference', { exact: true }).click();
    const difference = share.locator('pre.diff');
    assert.match(await difference.locator('.removed').textContent(), /"rolloutPercentage": 5/);
    assert.match(await difference.locator('.added').textContent(), /"rolloutPercentage": 20/);
    await person.assertAccessible('the history of a flag');

    // The dialog shows what the flag loses, which is more than the change.
    await share.getByRole('button', { name: 'Revert this change' }).click();
    await person.by('dialog').locator('.removed').filter({ hasText: '"enabled": true' }).waitFor();
    await change({ description: 'Changed in the meantime' });
    await person.confirm('Revert');
    await person.by('status').getByText(/changed/).first().waitFor();
    assert.equal((await installation.flag(env, 'banner')).rolloutPercentage, 20);
    await person.press('button', /^Close: /);

    await share.getByRole('button', { name: 'Revert this change' }).click();
    await person.confirm('Revert');
    await person.sees('banner was reverted.');
    const { rolloutPercentage, enabled, description } = await installation.flag(env, 'banner');
    assert.deepEqual({ rolloutPercentage, enabled, description }, { rolloutPercentage: 5, enabled: false, description: null });
    await entries.filter({ hasText: 'reverted banner' }).waitFor();

    // The dialog also shows a definition that the flag loses, and whether the flag leaves the archive or returns to it.
    const dialog = person.by('dialog').locator('pre.diff');
    const asks = async (entry, button) => {
      await person.page.reload();
      const item = entries.filter({ hasText: entry }).first();
      await item.getByText('Difference', { exact: true }).click();
      await item.getByRole('button', { name: button }).click();
      await dialog.waitFor();
      return [await dialog.locator('.removed').allTextContents(), await dialog.locator('.added').allTextContents()].map((lines) => lines.join(''));
    };
    await installation.api('PATCH', `/api/admin/flags/banner?environment=${env}`, { definition: { variants: { on: true, off: false }, defaultVariant: 'off' } }, { 'if-match': '*' });
    assert.match((await asks('Variants or rules', 'Revert this change'))[0], /"defaultVariant": "off"/);
    await installation.api('DELETE', `/api/admin/flags/banner?environment=${env}`, undefined, { 'if-match': '*' });
    assert.deepEqual((await asks('Rollout: 5 % → 20 %', 'Return to this state')).map((lines) => /"archived": (true|false)/.exec(lines)?.[1]), ['true', 'false']);
    await installation.api('POST', `/api/admin/flags/banner/restore?environment=${env}`, undefined, { 'if-match': '*' });
    assert.deepEqual((await asks('restored banner', 'Revert this change')).map((lines) => /"archived": (true|false)/.exec(lines)?.[1]), ['false', 'true']);

    // All flags, filtered by words, and a link to one change.
    await person.go(`/${env}/activity`);
    await entries.filter({ hasText: 'created other' }).waitFor();
    await person.by('searchbox').fill('local-admin reverted');
    await eventually(async () => (await entries.count()) === 1, () => 'the list is not filtered');
    assert.match(person.page.url(), /q=local-admin/);
    await person.assertAccessible('the activity');
    await entries.getByRole('link', { name: /^Link/ }).click();
    await person.page.locator('ol.audit > li.linked').filter({ hasText: 'reverted banner' }).waitFor();
    await person.leave();
  });

  it('opens a link to an entry on the page of the history that contains it now', async () => {
    const env = await installation.environment('linked');
    await installation.createFlag(env, { key: 'old', enabled: false, rolloutPercentage: 0 });
    for (let percent = 1; percent <= 60; percent += 1) {
      await installation.api('PATCH', `/api/admin/flags/old?environment=${env}`, { rolloutPercentage: percent });
    }
    const person = await open(`/${env}/activity?page=2`);
    await person.by('listitem').filter({ hasText: 'Rollout: 1 % → 2 %' }).getByRole('link', { name: 'Link' }).click();
    await person.by('heading', 'old', { exact: true }).waitFor();
    await person.page.locator('li.linked').filter({ hasText: 'Rollout: 1 % → 2 %' }).waitFor();
    await person.press('link', 'Newer');
    await person.by('listitem').filter({ hasText: 'Rollout: 59 % → 60 %' }).waitFor();
    await person.leave();
  });

  it('explains a value by the steps that the API reports', async () => {
    const env = await installation.environment('explain');
    await installation.api('PUT', `/api/admin/environments/${env}/settings`, {
      fractional: 'v3', bucketing: null, anonymousRollout: null, metadata: {},
      evaluators: { europe: { in: [{ var: 'country' }, ['DE', 'AT']] } },
    }, { 'if-match': '*' });
    await installation.createFlag(env, {
      key: 'theme', enabled: true,
      definition: {
        variants: { plain: 'p', festive: 'f', dark: 'd' },
        defaultVariant: 'plain',
        targeting: { if: [{ and: [{ $ref: 'europe' }, { '>=': [{ var: 'age' }, 18] }] }, { fractional: [['festive', 50], ['dark', 50]] }, null] },
      },
    });
    const person = await open(`/${env}/flags/theme?tab=explain`);
    await person.context.grantPermissions(['clipboard-read', 'clipboard-write']);
    const steps = person.page.locator('ol.trace > li');
    /** Compares the page with a response of the API to the same context. */
    const agrees = async (context) => {
      const { value, variant, reason, path } = await installation.api('POST', `/api/admin/flags/theme/explain?environment=${env}`, { context });
      await person.by('status').getByText(`${JSON.stringify(value)} (variant ${variant})`).waitFor();
      await person.by('status').getByText(`${reason}: `).first().waitFor();
      const shown = await steps.allTextContents();
      assert.equal(shown.length, path.length, shown.join('\n'));
      for (const [index, step] of path.entries()) {
        const facts = {
          operation: () => [`${step.operator}: `, `→ ${JSON.stringify(step.result)}`, step.pointer, ...(step.fractional?.variants ?? []).map(({ variant, limit }) => `${variant} below ${limit}`)],
          default: () => [`The default variant applies: ${step.variant}.`],
          enabled: () => ['The flag is on.'],
          archived: () => ['not archived'],
          serverOnly: () => ['any key'],
          override: () => [step.result === null ? 'no override' : step.variant],
        }[step.step]();
        for (const fact of facts) assert.ok(shown[index].includes(fact), `${JSON.stringify(step)}: ${shown[index]}`);
      }
      return variant;
    };
    // The form asks for what the rule itself reads; what the segment reads is added.
    const value = (index) => person.page.locator('.form-row').nth(index).getByLabel('Value');
    await value(0).fill('alice');
    assert.equal(await person.by('textbox', 'Attribute').nth(1).inputValue(), 'age');
    await value(1).fill('40');
    await person.press('button', 'Add attribute');
    await person.by('textbox', 'Attribute').nth(2).fill('country');
    await value(2).fill('DE');
    await person.press('button', 'Explain', { exact: true });
    await steps.first().waitFor();
    assert.match(await agrees({ targetingKey: 'alice', age: 40, country: 'DE' }), /festive|dark/);
    assert.ok(!person.page.url().includes('alice'), 'the user is in the address');
    await person.assertAccessible('an explanation');

    await person.press('button', 'Edit as JSON');
    const json = person.by('textbox', 'Context as JSON');
    assert.deepEqual(JSON.parse(await json.inputValue()), { targetingKey: 'alice', age: 40, country: 'DE' });
    // JavaScript's numbers are exact up to 2^53.
    await person.press('button', 'Edit as a form');
    await value(1).fill('9007199254740993');
    await person.press('button', 'Edit as JSON');
    assert.match(await json.inputValue(), /"age": 9007199254740993,/);
    await json.fill('{"targetingKey": ');
    await person.by('alert').getByText('The context must be a JSON object').waitFor();
    await json.fill('{}');
    await person.by('alert').waitFor({ state: 'detached' });
    await json.fill('9007199254740993');
    await person.by('alert').getByText('The context must be a JSON object').waitFor();
    const adult = { targetingKey: 'alice', age: '40', country: 'FR' };
    await json.fill(JSON.stringify(adult));
    await person.press('button', 'Explain', { exact: true });
    await person.by('status').getByText('"p" (variant plain)').waitFor();
    assert.equal(await agrees(adult), 'plain');
    await person.press('button', 'Copy link with this context');
    const link = await person.page.evaluate(() => navigator.clipboard.readText());
    await person.page.goto(link);
    await person.by('button', 'Explain', { exact: true }).waitFor();
    // A number in quotes stays a text.
    assert.equal(await value(1).inputValue(), '"40"');
    await person.press('button', 'Explain', { exact: true });
    await steps.first().waitFor();
    assert.equal(await agrees(adult), 'plain');

    await installation.api('POST', `/api/admin/flags/theme/users?environment=${env}`, { userId: 'alice', overrideType: 'include', variant: 'dark' });
    await person.press('button', 'Explain', { exact: true });
    await person.sees('The override of the user decides: dark.');
    assert.equal(await agrees(adult), 'dark');
    await person.leave();
  });
});
