// Journeys over the pages around flags: API keys, usage, settings, environments, clean-up, commands.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { useConsole } from './browser.mjs';
import { eventually, Installation } from './services.mjs';

describe('pages', { concurrency: 2 }, () => {
  const installation = new Installation();
  const open = useConsole(installation);

  /** The flag as an application sees it. */
  const evaluate = (key, flag) => fetch(`${installation.url}/ofrep/v1/evaluate/flags/${flag}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ context: { targetingKey: 'alice' } }),
  });

  it('creates an API key, shows it once with programs, and revokes it', async () => {
    const env = await installation.environment('keys');
    await installation.createFlag(env, { key: 'new-checkout', enabled: true, rolloutPercentage: 100 });
    const person = await open(`/${env}/keys`, { expected: [/^400 POST \/api\/admin\/keys$/] });
    await person.sees('This environment has no API keys.');
    await person.press('button', 'Create key');
    const panel = person.page.locator('aside');
    await panel.getByRole('button', { name: 'Create key' }).click();
    await panel.getByRole('alert').first().waitFor();
    await person.by('textbox', 'Name').fill('shop backend');
    await panel.getByRole('button', { name: 'Create key' }).click();
    await person.sees('Copy the key now: it is shown only once.');
    const key = await panel.getByLabel('API key', { exact: true }).textContent();
    assert.match(key, /^pennon_server_keys_/);
    for (const [language, call] of [['node', 'getBooleanValue'], ['browser', 'OFREPWebProvider'], ['python', 'get_boolean_value'], ['rust', 'get_bool_value']]) {
      await person.by('combobox', 'Language').selectOption(language);
      const program = await panel.locator('pre').last().textContent();
      assert.ok(program.includes(call) && program.includes(key) && program.includes(`"${installation.url}"`), program);
    }
    await person.assertAccessible('a new key');
    const kept = await person.page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, location.href]));
    assert.ok(!kept.includes(key), 'the key is in a storage or in the address');
    assert.equal((await evaluate(key, 'new-checkout')).status, 200);

    await panel.getByRole('button', { name: 'Close' }).click();
    await person.by('table').getByText('shop backend').waitFor();
    assert.ok(!(await person.page.content()).includes(key), 'the key is still shown');
    await person.press('button', 'Revoke: shop backend');
    await person.confirm('Revoke');
    await person.sees('The key shop backend was revoked.');
    await eventually(async () => (await evaluate(key, 'new-checkout')).status === 401, () => 'the key still works');
    await person.leave();
  });

  it('shows the evaluations of each variant and when a key was last used', async () => {
    const env = await installation.environment('usage');
    await installation.createFlag(env, { key: 'counted', enabled: true, definition: { variants: { on: true, off: false }, defaultVariant: 'on' } });
    await installation.createFlag(env, { key: 'unused', enabled: true });
    const { key } = await installation.api('POST', `/api/admin/keys?environment=${env}`, { kind: 'server', name: 'counter' });
    for (let round = 0; round < 3; round++) assert.equal((await evaluate(key, 'counted')).status, 200);
    const counted = async () => (await installation.api('GET', `/api/admin/flags/counted/usage?environment=${env}`)).evaluations === 3;
    await eventually(counted, () => 'the evaluations are not counted');
    const person = await open(`/${env}/flags/counted?tab=usage`);
    const row = person.by('row', /^on/);
    await row.getByRole('img').waitFor();
    assert.match(await row.textContent(), /3\s*100 %/);
    await person.assertAccessible('usage');
    // On a narrow screen, the newest day and the current tab are in view too.
    await person.page.setViewportSize({ width: 360, height: 700 });
    await person.page.reload();
    const endsOf = (locator) => locator.evaluate((element) => [element.getBoundingClientRect().right, element.parentElement.getBoundingClientRect().right]);
    for (const [what, locator] of Object.entries({ chart: row.getByRole('img'), tab: person.by('link', 'Usage', { exact: true }) })) {
      const [end, limit] = await endsOf(locator);
      assert.ok(end <= limit, `the ${what} ends at ${end}, behind ${limit}`);
    }
    await person.page.setViewportSize({ width: 1280, height: 720 });
    await person.by('combobox', 'Period').selectOption('7');
    await eventually(() => person.page.url().includes('days=7'), () => person.page.url());
    await person.go(`/${env}/flags/unused?tab=usage`);
    await person.sees('No evaluation was counted.');
    await installation.api('POST', `/api/admin/keys?environment=${env}`, { kind: 'server', name: 'idle' });
    await person.go(`/${env}/keys`);
    assert.match(await person.by('row', /^counter/).textContent(), /today/);
    assert.match(await person.by('row', /^idle/).textContent(), /never/);
    await person.leave();
  });

  it('shows sample programs that call the getter for the type of the flag', async () => {
    const env = await installation.environment('code');
    await installation.createFlag(env, { key: 'limit', enabled: true, definition: { variants: { low: 1, high: 2.5 }, defaultVariant: 'low' } });
    const person = await open(`/${env}/flags/limit?tab=code`);
    await person.by('combobox', 'Language').selectOption('python');
    await person.sees('get_float_value("limit", 0.0');
    await person.page.locator('section').getByRole('link', { name: 'API keys' }).click();
    await person.sees('This environment has no API keys.');
    await person.leave();
  });

  it('finds commands and flags by keyboard, and lists the shortcuts', async () => {
    const env = await installation.environment('palette');
    await installation.environment('elsewhere');
    for (const key of ['alpha', 'beta']) await installation.createFlag(env, { key, enabled: true });
    const person = await open(`/${env}/flags`);
    const keyboard = person.page.keyboard;
    await person.sees('2 flags');
    await keyboard.press('Control+k');
    await person.by('dialog', 'Commands').waitFor();
    await person.assertAccessible('the command palette');
    await keyboard.type('beta');
    await person.by('option', `Open flag beta in ${env}`, { selected: true }).waitFor();
    await keyboard.press('Enter');
    await person.by('heading', 'beta', { exact: true }).waitFor();
    assert.equal(await person.by('dialog').count(), 0);
    await keyboard.press('Control+k');
    await keyboard.type('switch elsewhere');
    await person.by('option', 'Switch to elsewhere', { selected: true }).waitFor();
    await keyboard.press('Escape');
    await person.by('dialog').waitFor({ state: 'detached' });
    await keyboard.press('?');
    await person.by('dialog', 'Keyboard shortcuts').getByRole('row', { name: /Switch environment E/i }).waitFor();
    await person.assertAccessible('the list of shortcuts');
    await keyboard.press('Escape');
    await person.leave();
  });

  it('changes the settings of an environment, and shows both sides when two people do', async () => {
    const env = await installation.environment('settings');
    const path = `/api/admin/environments/${env}/settings`;
    const settings = () => installation.api('GET', path);
    const person = await open(`/${env}/settings`, { expected: [/^412 PUT \/api\/admin\/environments\/settings\/settings$/, /^400 PUT /] });
    const evaluators = person.by('textbox', 'Evaluators (segments) as JSON');
    await evaluators.fill('{"europe": ');
    await person.by('alert').getByText('This is not valid JSON.').waitFor();
    await evaluators.fill('{"europe": {"no-such-operator": []}}');
    await person.press('button', 'Save', { exact: true });
    await person.confirm('Save');
    await person.by('alert').filter({ hasText: 'no-such-operator' }).first().waitFor();
    await evaluators.fill('{"europe": {"in": [{"var": "country"}, ["DE", "AT"]]}}');
    await person.press('button', 'Save', { exact: true });
    await person.by('dialog').locator('.added').filter({ hasText: '"country"' }).waitFor();
    await person.confirm('Save');
    await person.sees('The settings were saved.');
    assert.deepEqual((await settings()).evaluators, { europe: { in: [{ var: 'country' }, ['DE', 'AT']] } });

    await person.by('textbox', 'Metadata as JSON').fill('{"team": "shop"}');
    await person.press('button', 'Save', { exact: true });
    const { fractional, evaluators: theirs } = await settings();
    await installation.api('PUT', path, { fractional, evaluators: theirs, bucketing: 'sha256', anonymousRollout: null, metadata: {} }, { 'if-match': '*' });
    await person.confirm('Save');
    const conflict = person.by('alert', 'This has changed in the meantime');
    await conflict.locator('.added').filter({ hasText: '"bucketing": "sha256"' }).waitFor();
    await person.assertAccessible('a conflict of settings');
    await person.press('button', 'Apply mine on top');
    await person.confirm('Save');
    await eventually(async () => (await settings()).metadata.team === 'shop', () => 'the settings are not saved');
    assert.equal((await settings()).bucketing, 'sha256');
    // The API says what the installation's default is only while it applies.
    const choices = (label) => person.by('combobox', label).locator('option').allTextContents();
    await person.page.reload();
    await person.by('combobox', 'Buckets of simple flags').waitFor();
    assert.deepEqual(await choices('Buckets of simple flags'), ["installation's default", 'sha256', 'fractional']);
    assert.match((await choices('Value of a partial rollout'))[0], /^installation's default \((true|false)\)$/);
    await person.leave();
  });

  it('creates an environment, imports after a dry run, compares, and exports', async () => {
    const env = 'imported';
    const person = await open('/production/settings', { expected: [/^400 POST /, /^409 POST /] });
    await person.by('textbox', 'Name').fill('not an environment');
    await person.press('button', 'Create an environment');
    await person.by('alert').filter({ hasText: 'environment' }).first().waitFor();
    await person.by('textbox', 'Name').fill(env);
    await person.press('button', 'Create an environment');
    await person.by('heading', `Flags of ${env}`).waitFor();
    await eventually(async () => (await person.by('combobox', 'Environment').inputValue()) === env, () => 'another environment is chosen');
    // Production, which has nothing yet, can still be chosen.
    await person.by('combobox', 'Environment').selectOption('production');
    await person.by('heading', 'Flags of production').waitFor();
    await person.sees('This environment has no active flags.');
    await installation.createFlag(env, { key: 'kept', enabled: true, rolloutPercentage: 100 });
    await installation.createFlag(env, { key: 'raised', enabled: true, rolloutPercentage: 5 });

    await person.go(`/${env}/settings`);
    const contents = person.by('textbox', 'Contents');
    const file = { metadata: { team: 'shop' }, flags: {
      raised: { state: 'ENABLED', rolloutPercentage: 25 },
      theme: { state: 'ENABLED', variants: { light: '#fff', dark: '#000' }, defaultVariant: 'light' },
    } };
    await contents.fill('{"flags": {"theme": {"state": "ENABLED", "variants": {}, "defaultVariant": "none"}}}');
    await person.press('button', 'Show what would change');
    await person.by('alert').filter({ hasText: 'theme' }).first().waitFor();
    await contents.fill(JSON.stringify(file));
    await person.by('combobox', 'Flags that the file lacks').selectOption('replace');
    await person.press('button', 'Show what would change');
    const dialog = person.by('dialog', `Import into ${env}?`);
    for (const part of ['Created: 1', 'Changed: 1', 'Archived: 1', 'Settings']) await dialog.getByRole('heading', { name: part }).waitFor();
    await dialog.locator('.added').filter({ hasText: '"team": "shop"' }).waitFor();
    await dialog.getByText('raised', { exact: true }).click();
    await dialog.locator('.added').filter({ hasText: '25' }).waitFor();
    await person.assertAccessible('the difference of an import');
    assert.equal((await installation.flag(env, 'raised')).rolloutPercentage, 5);
    await dialog.getByRole('button', { name: 'Cancel' }).click();
    await person.by('combobox', 'Flags that the file lacks').selectOption('merge');
    await person.press('button', 'Show what would change');
    await dialog.getByRole('heading', { name: 'Created: 1' }).waitFor();
    assert.equal(await dialog.getByRole('heading', { name: /Archived/ }).count(), 0);
    await person.confirm('Import');
    await person.sees(`The file was imported into ${env}.`);
    assert.equal((await installation.flag(env, 'raised')).rolloutPercentage, 25);
    assert.equal((await installation.flag(env, 'kept')).archivedAt, null);
    assert.equal((await installation.flag(env, 'theme')).definition.variants.dark, '#000');

    const [download] = await Promise.all([person.page.waitForEvent('download'), person.press('button', 'Export as flagd file')]);
    assert.equal(download.suggestedFilename(), `${env}.json`);
    assert.deepEqual(JSON.parse(await readFile(await download.path(), 'utf8')), await installation.api('GET', `/api/admin/environments/${env}/export`));

    const other = await installation.environment('compared');
    await installation.createFlag(other, { key: 'kept', enabled: true, rolloutPercentage: 100 });
    await installation.createFlag(other, { key: 'raised', enabled: true, rolloutPercentage: 50 });
    // The API has created the other environment, so the console knows it only after the page was loaded again.
    await person.page.goto(`${installation.url}/console/compare?from=${env}&to=${other}`);
    await person.sees('2 flags differ.');
    const row = (key) => person.by('row').filter({ has: person.by('link', key) });
    assert.match(await row('raised').textContent(), /25 % of users.*50 % of users/);
    assert.match(await row('theme').textContent(), /missing/);
    assert.equal(await row('kept').count(), 0);
    await person.press('button', 'Difference: raised');
    const panel = person.by('complementary', 'raised');
    assert.match(await panel.locator('.removed').textContent(), /"rolloutPercentage": 50/);
    assert.match(await panel.locator('.added').textContent(), /"rolloutPercentage": 25/);
    await person.assertAccessible('a comparison');
    await person.by('combobox', 'To').selectOption(env);
    await person.sees('Choose two different environments.');
    await person.leave();
  });

  it('computes a difference when it is opened, and says what is too large to show', async () => {
    const env = await installation.environment('large');
    const person = await open(`/${env}/settings`);
    const warning = (message) => ({ pointer: '/flags/theme', message });
    const answer = {
      environment: env, dryRun: true, created: [{ key: 'theme', after: { enabled: true } }], changed: [], archived: [{ key: 'old' }, { key: 'older' }],
      unchanged: 1, omitted: 3, settings: {}, kept: ['/$schema'], warnings: [warning('cannot work'), warning('selects others')],
    };
    await person.page.route('**/import?*dryRun=true*', (route) => route.fulfill({ json: answer }));
    await person.by('textbox', 'Contents').fill('{"flags": {}}');
    await person.press('button', 'Show what would change');
    const dialog = person.by('dialog', `Import into ${env}?`);
    await dialog.getByRole('heading', { name: 'Created: at least 1' }).waitFor();
    await dialog.getByRole('heading', { name: 'Archived: at least 2' }).waitFor();
    await dialog.getByRole('heading', { name: 'Settings' }).waitFor();
    for (const text of ['too large to show', '3 more entries not shown.', '/flags/theme: cannot work', '/flags/theme: selects others']) await dialog.getByText(text).waitFor();
    assert.equal(await dialog.locator('.diff').count(), 0);
    await dialog.getByText('theme', { exact: true }).click();
    await dialog.locator('.added').filter({ hasText: '"enabled": true' }).waitFor();
    await person.assertAccessible('a difference that is too large');
    await person.leave();
  });

  it('purges the cache after a change by SQL, and archives stale flags and undoes that', async () => {
    const env = await installation.environment('stale');
    for (const key of ['old', 'older', 'oldest', 'touched']) await installation.createFlag(env, { key, enabled: true, rolloutPercentage: 100 });
    await installation.createFlag(env, { key: 'young', enabled: true, rolloutPercentage: 100 });
    const { key } = await installation.api('POST', `/api/admin/keys?environment=${env}`, { kind: 'server', name: 'reader' });
    const value = async () => (await (await evaluate(key, 'young')).json()).value;
    const person = await open('/cleanup');
    await person.sees('No flag is stale.');

    installation.sql(`update feature_flags set created_at = '2020-01-01', updated_at = '2020-01-01' where environment = '${env}' and flag_key <> 'young'`);
    const setYoung = (enabled) => installation.sql(`update feature_flags set enabled = ${enabled} where environment = '${env}' and flag_key = 'young'`);
    // `reconcile` may update the cache right after the change, but runs only once a minute.
    for (let attempts = 0; ; attempts++) {
      await installation.api('POST', `/api/admin/environments/${env}/purge`);
      assert.equal(await value(), true);
      setYoung(false);
      if (await value()) break;
      assert.ok(attempts < 5, 'the cache does not have it');
      setYoung(true);
    }
    await person.go(`/${env}/settings`);
    await person.press('button', 'Purge the cache');
    await person.confirm('Purge the cache');
    await person.sees('A purge was requested. Every instance sees the change.');
    assert.equal(await value(), false);

    await person.page.goto(`${installation.url}/console/cleanup`);
    await person.sees('4 flags');
    const row = person.by('row').filter({ has: person.by('link', 'old', { exact: true }) });
    await row.getByText('Not evaluated for 30 days').waitFor();
    await row.getByText('The same value for every user for 30 days').waitFor();
    await person.by('button', 'Archive', { exact: true }).and(person.page.locator('[aria-disabled=true]')).waitFor();
    for (const flag of ['old', 'oldest', 'touched']) await person.by('checkbox', `Select ${flag} in ${env}`, { exact: true }).check();
    await person.assertAccessible('stale flags');
    await person.press('button', 'Archive 3 flags');
    assert.deepEqual(await person.by('dialog').getByRole('listitem').allTextContents(), [`old in ${env}`, `oldest in ${env}`, `touched in ${env}`]);
    await installation.api('PATCH', `/api/admin/flags/touched?environment=${env}`, { description: 'Still needed' });
    await person.confirm('Archive');
    await person.sees('2 flags archived.');
    await person.sees(`touched in ${env}: This has changed in the meantime`);
    const archived = async (flag) => (await installation.flag(env, flag)).archivedAt !== null;
    assert.deepEqual(await Promise.all(['old', 'older', 'oldest', 'touched'].map(archived)), [true, false, true, false]);
    await person.sees('2 flags');
    await person.by('row', /^Select older/).waitFor();
    await person.by('row', /^Select touched/).waitFor();

    await person.press('button', 'Undo');
    await person.sees('Undone.');
    for (const flag of ['old', 'oldest']) {
      const { archivedAt, enabled, rolloutPercentage } = await installation.flag(env, flag);
      assert.deepEqual({ archivedAt, enabled, rolloutPercentage }, { archivedAt: null, enabled: true, rolloutPercentage: 100 });
    }
    await person.leave();
  });
});
