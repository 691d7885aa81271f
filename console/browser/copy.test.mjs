// Journeys over flags of two environments: comparing, copying, conflicts, roles.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Person, startBrowser, useConsole } from './browser.mjs';
import { eventually, Installation } from './services.mjs';

describe('copying', { concurrency: 2 }, () => {
  const installation = new Installation();
  const open = useConsole(installation);
  const update = (env, key, change) => installation.api('PATCH', `/api/admin/flags/${key}?environment=${env}`, change, { 'if-match': '*' });
  const typed = { variants: { on: true, off: false }, defaultVariant: 'on' };
  /** Two environments: `changed` and `theme` have different states, `added` is new, `equal` differs in the order of variants only. */
  const pair = async (name) => {
    const [from, to] = await Promise.all([installation.environment(`${name}-from`), installation.environment(`${name}-to`)]);
    for (const env of [from, to]) {
      await installation.createFlag(env, { key: 'changed', enabled: true, rolloutPercentage: env === from ? 30 : 5 });
      const variants = env === from ? typed.variants : { off: false, on: true };
      await installation.createFlag(env, { key: 'equal', enabled: true, definition: { ...typed, variants } });
      await installation.createFlag(env, { key: 'theme', enabled: true, rolloutPercentage: env === from ? 100 : 5 });
      await update(env, 'theme', { definition: { ...typed, defaultVariant: env === from ? 'on' : 'off' } });
    }
    await installation.createFlag(from, { key: 'added', enabled: true, definition: typed });
    return [from, to];
  };

  it('copies selected flags after a dry run, and undoes it', async () => {
    const [from, to] = await pair('several');
    const person = await open(`/compare?from=${from}&to=${to}`);
    await person.sees('3 flags differ.');
    await person.by('button', 'Copy', { exact: true }).and(person.page.locator('[title="Select flags to copy"]')).waitFor();
    await person.press('button', 'Select all');
    await person.assertAccessible('a comparison');
    await person.press('button', 'Copy 3 flags');
    const dialog = person.by('dialog', `Copy 3 flags from ${from} to ${to}?`);
    await dialog.getByText('Created: 1').waitFor();
    await dialog.getByText('Changed: 2').waitFor();
    await dialog.getByText('changed', { exact: true }).click();
    await dialog.getByText('"rolloutPercentage": 30').waitFor();
    await person.assertAccessible('the dry run of a copy');
    assert.equal((await installation.flag(to, 'changed')).rolloutPercentage, 5, 'a dry run has changed a flag');
    await person.confirm('Copy');
    await person.sees(`3 flags copied to ${to}.`);
    await person.sees('These environments have the same flags.');
    assert.equal((await installation.flag(to, 'changed')).rolloutPercentage, 30);
    assert.deepEqual((await installation.flag(to, 'added')).definition, typed);
    assert.equal((await installation.flag(to, 'theme')).definition.defaultVariant, 'on');
    await person.press('button', 'Undo');
    await person.sees('Undone.');
    assert.equal((await installation.flag(to, 'changed')).rolloutPercentage, 5);
    assert.notEqual((await installation.flag(to, 'added')).archivedAt, null);
    const { definition, rolloutPercentage } = await installation.flag(to, 'theme');
    assert.equal(definition.defaultVariant, 'off');
    assert.equal(rolloutPercentage, 5, 'the rollout that the definition hides is not restored');
    await person.leave();
  });

  it('undoes a copy with one request at a time, and names the flags that have changed since', async () => {
    const [from, to] = await pair('each');
    const person = await open(`/compare?from=${from}&to=${to}`, { expected: [/^412 POST /] });
    await person.press('button', 'Select all');
    await person.press('button', 'Copy 3 flags');
    await person.confirm('Copy');
    await person.sees(`3 flags copied to ${to}.`);
    await update(to, 'changed', { description: 'Changed since' });
    let [running, most] = [0, 0];
    await person.page.route(/\/flags\/\w+(\/revert)?\?/, async (route) => {
      most = Math.max(most, ++running);
      const response = await route.fetch();
      // Requests that start at the same time arrive before this response ends.
      await new Promise((done) => setTimeout(done, 100));
      running -= 1;
      await route.fulfill({ response });
    });
    await person.press('button', 'Undo');
    await person.page.locator('.toast.bad').filter({ hasText: /^changed: / }).waitFor();
    assert.equal(most, 1);
    assert.equal((await installation.flag(to, 'changed')).rolloutPercentage, 30);
    assert.equal((await installation.flag(to, 'theme')).definition.defaultVariant, 'off');
    await person.page.unrouteAll({ behavior: 'wait' });
    await person.leave();
  });

  it('does not undo the replacement of a definition that cannot be read', async () => {
    const [from, to] = await pair('broken');
    installation.sql(`update feature_flags set definition = '5'::json where flag_key = 'theme' and environment = '${to}'`);
    const person = await open(`/compare?from=${from}&to=${to}`);
    await person.press('button', 'Select all');
    await person.press('button', 'Copy 3 flags');
    await person.confirm('Copy');
    await person.sees(`3 flags copied to ${to}.`);
    await person.press('button', 'Undo');
    await person.sees('Undone.');
    assert.equal((await installation.flag(to, 'changed')).rolloutPercentage, 5);
    assert.deepEqual((await installation.flag(to, 'theme')).definition, typed);
    await person.leave();
  });

  it('compares definitions that a page of the list omits because of their size', async () => {
    const [from, to] = await Promise.all([installation.environment('large-from'), installation.environment('large-to')]);
    // Eight of these do not fit into a response of 5.9 MB. Through the API, each new one takes longer than the one before.
    for (const env of [from, to]) {
      installation.sql(`insert into feature_flags (flag_key, environment, enabled, definition)
        select 'large-' || number, '${env}', true, json_build_object('defaultVariant', 'one', 'variants', json_build_object(
          'one', text, 'two', text, 'three', text, 'four', text || case number when 4 then right('${env}', 2) else '' end))
        from generate_series(1, 8) as number, repeat('x', 200000) as text`);
    }
    const person = await open(`/compare?from=${from}&to=${to}`);
    await person.sees('1 flag differs.');
    await person.leave();
  });

  it('copies one flag from its page', async () => {
    const [from] = await pair('one');
    await installation.createFlag('production', { key: 'changed', enabled: false });
    const person = await open(`/${from}/flags`);
    await person.press('link', 'Compare');
    // The lists are empty until the environments are known.
    const compares = (...expected) => eventually(async () => {
      assert.deepEqual([await person.by('combobox', 'From').inputValue(), await person.by('combobox', 'To').inputValue()], expected);
      return true;
    });
    await compares(from, 'production');
    await person.press('button', 'Swap');
    await compares('production', from);
    await person.go(`/${from}/flags/changed`);
    await person.press('button', 'Copy to production…');
    await person.sees('1 flag differs.');
    await person.press('button', 'Copy 1 flag');
    await person.by('dialog').getByText('This is production.').waitFor();
    await person.confirm('Copy');
    await person.sees('1 flag copied to production.');
    await person.sees('changed is the same in both environments.');
    assert.equal((await installation.flag('production', 'changed')).rolloutPercentage, 30);
    await person.press('link', 'Open flag changed in production');
    await person.press('link', 'History');
    await person.page.getByText('Difference').first().click();
    await person.press('button', 'Return to this state');
    await person.by('dialog').getByText('"rolloutPercentage": 30').waitFor();
    assert.doesNotMatch(await person.by('dialog').textContent(), /copiedFrom/);
    await person.by('dialog').getByRole('button', { name: 'Cancel', exact: true }).click();
    await person.go(`/compare?from=${from}&to=production&flag=changed`);
    await person.press('button', 'Compare all flags');
    await person.sees('3 flags differ.');
    await person.leave();
  });

  it('shows both sides when someone has changed the target, and the reason when the API refuses', async () => {
    const [from, to] = await pair('conflict');
    const refusal = new RegExp(`^4(09|12) POST /api/admin/environments/${to}/copy$`);
    const person = await open(`/compare?from=${from}&to=${to}`, { expected: [refusal] });
    await person.by('checkbox', 'Select changed').check();
    await update(to, 'changed', { rolloutPercentage: 7 });
    await person.press('button', 'Copy 1 flag');
    const clash = person.by('alert', 'This has changed in the meantime');
    await clash.getByText('"rolloutPercentage": 7').first().waitFor();
    await clash.getByText('"rolloutPercentage": 30').waitFor();
    await person.assertAccessible('a conflict of a copy');
    await person.press('button', 'Apply mine on top');
    await person.confirm('Copy');
    await person.sees(`1 flag copied to ${to}.`);
    assert.equal((await installation.flag(to, 'changed')).rolloutPercentage, 30);

    // The flag refers to an evaluator that the target does not have.
    await installation.api('PUT', `/api/admin/environments/${from}/settings`, { evaluators: { staff: { '==': [{ var: 'staff' }, true] } } }, { 'if-match': '*' });
    await update(from, 'added', { definition: { ...typed, targeting: { if: [{ $ref: 'staff' }, 'on', 'off'] } } });
    await person.go(`/compare?from=${from}&to=${to}&flag=added`);
    await person.press('button', 'Copy 1 flag');
    await person.by('alert').getByText(/staff/).waitFor();
    await person.leave();
  });

  it('closes a conflict when someone else has made the same change', async () => {
    const [from, to] = await pair('same');
    const person = await open(`/compare?from=${from}&to=${to}`, { expected: [/^412 POST /] });
    await person.by('checkbox', 'Select changed').check();
    await update(to, 'changed', { rolloutPercentage: 30 });
    await person.press('button', 'Copy 1 flag');
    await person.by('alert', 'This has changed in the meantime').waitFor();
    await person.sees('2 flags differ.');
    await person.press('button', 'Apply mine on top');
    await person.seesNo('This has changed in the meantime');
    assert.equal(await person.by('alert').count(), 0);
    await person.leave();
  });

  it('offers copying to editors of the target only', async () => {
    const signedIn = new Installation();
    const [browser] = await Promise.all([startBrowser(), signedIn.start({ issuer: true })]);
    try {
      await signedIn.environment('staging');
      for (const env of ['production', 'staging']) await signedIn.createFlag(env, { key: 'roles', enabled: true, rolloutPercentage: env === 'staging' ? 5 : 10 });
      await signedIn.issuer.command({ subject: 'eve', groups: ['editor:staging'] });
      const person = await Person.open(browser, signedIn, '/compare?from=staging&to=production', { token: null });
      await person.press('button', 'Sign in');
      await person.by('button', 'Copy', { exact: true }).and(person.page.locator('[aria-disabled=true][title="Needs the role editor:production"]')).waitFor();
      assert.ok(await person.by('checkbox', 'Select roles').isDisabled());
      await person.go('/compare?from=production&to=staging');
      await person.by('checkbox', 'Select roles').check();
      await person.press('button', 'Copy 1 flag');
      await person.confirm('Copy');
      await person.sees('1 flag copied to staging.');
      await person.leave();
    } finally {
      await browser.close();
      await signedIn.stop();
    }
  });
});
