// Journeys over the pages around flags: API keys, usage, clean-up, commands.
import assert from 'node:assert/strict';
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

  it('shows the evaluations of each variant', async () => {
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
    await person.by('combobox', 'Period').selectOption('7');
    await eventually(() => person.page.url().includes('days=7'), () => person.page.url());
    await person.go(`/${env}/flags/unused?tab=usage`);
    await person.sees('No evaluation was counted.');
    await person.leave();
  });

  it('shows programs that ask for the type of the flag', async () => {
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

  it('has no stale flags in a new installation', async () => {
    const person = await open('/cleanup');
    await person.sees('No flag is stale.');
    await person.leave();
  });
});
