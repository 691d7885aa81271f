// What the console loads, and when.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { useConsole } from './browser.mjs';
import { eventually, Installation } from './services.mjs';

describe('loading', () => {
  const installation = new Installation();
  const open = useConsole(installation);
  /** Delays requests until `until` resolves. If the page needs a delayed response for that, the test times out. */
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

    // The time with an empty cache and without delayed requests, measured in the browser.
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

    // The configuration is requested before the script arrives, and the list before the responses about the person and the environments.
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
    await percent.fill('30');
    const drafts = () => person.page.evaluate(() => Object.keys(sessionStorage).filter((name) => name.startsWith('pennon.draft')));
    await eventually(async () => (await drafts()).length === 0, () => 'a draft without changes is kept');
    await person.page.unrouteAll({ behavior: 'wait' });
    await person.leave();
  });
});
