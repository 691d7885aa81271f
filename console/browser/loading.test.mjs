// What the console loads, and when: the first paint, and the parts that are loaded later.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { useConsole } from './browser.mjs';
import { Installation } from './services.mjs';

describe('loading', () => {
  const installation = new Installation();
  const open = useConsole(installation);
  /** The scripts that a page has loaded, without the hash in their names. */
  const scripts = async (person) => {
    const urls = await person.page.evaluate(() => performance.getEntriesByType('resource').map(({ name }) => name));
    return urls.filter((url) => url.endsWith('.js')).map((url) => url.split('/').at(-1).replace(/-\w+\.js$/, '')).sort();
  };
  /** Holds requests until a condition holds, so that a page that needs their responses for it never gets there. */
  const hold = (person, path, until) => person.page.route(path, async (route) => {
    await until();
    await route.fallback();
  });

  it('shows the first row after the page, the script and the list, one after the other', async (test) => {
    const env = await installation.environment('first');
    for (let number = 0; number < 100; number += 1) {
      await installation.createFlag(env, { key: `flag-${number}`, enabled: true, rolloutPercentage: number });
    }
    const address = `${installation.url}/console/${env}/flags`;
    const person = await open(`/${env}/flags`);
    const row = person.by('link', 'flag-0', { exact: true });
    await row.waitFor();
    assert.deepEqual(await scripts(person), ['app.js']);

    // As it is, with an empty cache: measured in the browser.
    await person.page.addInitScript(() => {
      new MutationObserver((_, observer) => {
        if (!document.querySelector('tbody a')) return;
        observer.disconnect();
        requestAnimationFrame(() => performance.mark('first row'));
      }).observe(document, { childList: true, subtree: true });
    });
    const browser = await person.context.newCDPSession(person.page);
    const times = [];
    for (let round = 0; round < 5; round += 1) {
      await browser.send('Network.clearBrowserCache');
      await person.page.goto(address);
      const mark = await person.page.waitForFunction(() => performance.getEntriesByName('first row')[0]?.startTime);
      times.push(Math.round(await mark.jsonValue()));
    }
    test.diagnostic(`first row after ${times.sort((a, b) => a - b)[2]} ms (median of ${times})`);

    // Neither the configuration waits for the script, nor the list for who is signed in.
    const requested = (path) => person.page.waitForRequest((request) => new URL(request.url()).pathname === path);
    const configuration = requested('/console/config.json');
    await hold(person, '**/console/app.js', () => configuration);
    await hold(person, '**/api/admin/me', () => row.waitFor());
    await hold(person, '**/api/admin/environments', () => row.waitFor());
    await person.page.goto(address, { waitUntil: 'commit' });
    await row.waitFor();
    await person.page.unrouteAll({ behavior: 'wait' });
    await person.leave();
  });

  it('keeps what is typed after the message that a change was saved', async () => {
    const env = await installation.environment('typing');
    await installation.createFlag(env, { key: 'typed', enabled: true, rolloutPercentage: 5 });
    const person = await open(`/${env}/flags/typed`);
    const percent = person.by('spinbutton', 'Percent');
    await percent.fill('30');
    await hold(person, '**/api/admin/flags/typed?*', () => new Promise((done) => setTimeout(done, 500)));
    await person.press('button', 'Save rollout');
    await person.sees(`typed is at 30 % in ${env}.`);
    await percent.fill('40');
    await person.page.waitForLoadState('networkidle');
    assert.equal(await percent.inputValue(), '40');
    await person.page.unrouteAll({ behavior: 'wait' });
    await person.leave();
  });

  it('loads one part for each page, and offers to try again if that fails', async () => {
    const env = await installation.environment('parts');
    await installation.createFlag(env, { key: 'simple', enabled: true });
    for (const [path, part, heading] of [
      [`/${env}/flags/simple`, 'changes', 'simple'], [`/${env}/flags/simple?tab=rules`, 'rules', 'simple'],
      [`/${env}/settings`, 'environments', `Settings of ${env}`],
    ]) {
      const person = await open(path);
      await person.by('heading', heading, { exact: true }).waitFor();
      await person.page.waitForLoadState('networkidle');
      assert.deepEqual(await scripts(person), ['app.js', part], path);
      await person.leave();
    }

    const person = await open(`/${env}/flags`);
    await person.sees('1 flag');
    await person.page.route('**/console/changes-*.js', (route) => route.abort());
    await person.press('link', 'simple');
    await person.sees(/Reload the page: there may be a new version/);
    await person.page.unrouteAll();
    await person.press('button', 'Try again');
    await person.by('spinbutton', 'Percent').waitFor();
    await person.leave();
  });
});
