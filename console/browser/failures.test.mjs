// Journeys with failures: Redis or PostgreSQL is down, a session ends, a role is missing.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Person, startBrowser } from './browser.mjs';
import { eventually, Installation, TOKEN } from './services.mjs';

describe('failures', () => {
  let browser;
  before(async () => {
    browser = await startBrowser();
  });
  after(() => browser?.close());

  it('saves without Redis, says that PostgreSQL is down, and saves when it runs again', async () => {
    const installation = await new Installation().start({ timeouts: {} });
    try {
      await installation.createFlag('production', { key: 'outage', enabled: true, rolloutPercentage: 5 });
      const person = await Person.open(browser, installation, '/production/flags/outage?tab=rollout', { expected: [/^50\d /] });
      await person.by('spinbutton', 'Percent').fill('25');

      // Without Redis, changes are possible.
      await installation.redis.stop();
      await person.press('button', 'Save rollout');
      await person.confirm('Save rollout');
      await person.sees('outage is at 25 % in production.');
      await person.go('/production/settings');
      await person.press('button', 'Purge the cache');
      await person.confirm('Purge the cache');
      await person.sees('A purge was requested. Redis did not confirm the change');
      await person.go('/production/flags/outage?tab=rollout');
      await installation.redis.start();

      // Without PostgreSQL, nothing can be changed, and nothing that was typed is lost.
      await person.by('spinbutton', 'Percent').fill('50');
      await installation.postgres.stop();
      // The service retries the change for a while. If PostgreSQL started meanwhile, it would be saved.
      const failed = person.page.waitForResponse((response) => response.request().method() === 'PATCH' && response.status() === 503);
      await person.press('button', 'Save rollout');
      await person.confirm('Save rollout');
      await failed;
      await person.sees(/database is unavailable|service is unavailable/);
      assert.equal(await person.by('spinbutton', 'Percent').inputValue(), '50');
      await installation.postgres.start();
      await person.seesNo(/database is unavailable|service is unavailable/);
      await person.press('button', 'Save rollout');
      await person.confirm('Save rollout');
      await person.sees('outage is at 50 % in production.');
      assert.equal((await installation.flag('production', 'outage')).rolloutPercentage, 50);
      await person.leave();
    } finally {
      await installation.stop();
    }
  });

  it('notices when the service is back: while nobody is signed in, after a rejected request, and when the tab is shown again', async () => {
    const installation = await new Installation().start();
    try {
      const person = await Person.open(browser, installation, '/production/flags', { token: null, expected: [/^403 /] });
      const { page } = person;
      const requests = [];
      page.on('request', (request) => requests.push(new URL(request.url()).pathname));
      // Nobody is signed in: nothing is requested but /health, and no sign-in is rejected.
      const checked = (count) => eventually(() => requests.filter((path) => path.endsWith('/health')).length >= count, () => `${requests}`);
      await page.route('**/health', (route) => route.abort());
      await checked(1);
      await page.unroute('**/health');
      await checked(3);
      await page.waitForTimeout(500);
      assert.deepEqual(requests.filter((path) => path.startsWith('/api')), []);
      await person.seesNo('The server did not accept this sign-in.');

      // A response of 403 shows that the server can be reached.
      await page.goto(`${installation.url}/console/production/flags#token=${TOKEN}`);
      await page.reload();
      await page.locator('h1').waitFor();
      await page.route('**/api/**', (route) => route.abort());
      await person.go('/production/keys');
      await person.sees('The server cannot be reached.');
      await page.unroute('**/api/**');
      await page.route('**/api/**', (route) => route.fulfill({ status: 403, json: { error: 'Forbidden' } }));
      await person.seesNo('The server cannot be reached.');
      await page.unroute('**/api/**');

      // A hidden tab checks nothing; when it is shown again, it checks at once.
      await page.reload();
      await page.route('**/health', (route) => route.fulfill({ json: { services: { database: 'unhealthy' } } }));
      await person.sees('The database is unavailable.');
      const show = (state) => page.evaluate((to) => {
        for (const [name, value] of [['visibilityState', to], ['hidden', to === 'hidden']]) {
          Object.defineProperty(document, name, { value, configurable: true });
        }
        document.dispatchEvent(new Event('visibilitychange', { bubbles: true }));
      }, state);
      await show('hidden');
      await page.waitForTimeout(4_000);
      await page.unroute('**/health');
      await show('visible');
      await person.seesNo('The database is unavailable.');
      await person.leave();
    } finally {
      await installation.stop();
    }
  });

  it('signs in through the issuer, renews an expired token, and says when the session has ended', async () => {
    const installation = await new Installation().start({ issuer: true });
    try {
      await installation.createFlag('production', { key: 'sessions', enabled: true, rolloutPercentage: 5 });
      await installation.issuer.command({ subject: 'ada', groups: ['admin'] });
      await installation.issuer.command({ tokenSeconds: 2 });
      const expected = [/^401 /, /^400 POST \/token$/];
      const person = await Person.open(browser, installation, '/production/flags/sessions?tab=rollout', { token: null, expected });
      await person.press('button', 'Sign in');
      await person.by('spinbutton', 'Percent').fill('30');
      // The access token is in neither localStorage nor a cookie, where scripts of a later page could read it.
      const stored = await person.page.evaluate(() => JSON.stringify({ ...localStorage }) + document.cookie);
      assert.ok(!stored.includes('eyJ'), stored);

      await person.tokenExpires();
      await person.press('button', 'Save rollout');
      await person.confirm('Save rollout');
      await person.sees('sessions is at 30 % in production.');
      const { entries } = await installation.api('GET', '/api/admin/flags/sessions/audit');
      assert.match(entries[0].actor, /ada/);

      await person.by('spinbutton', 'Percent').fill('40');
      await person.go('/production/settings');
      await person.by('textbox', 'Metadata as JSON').fill('{"team": "shop"}');
      await installation.issuer.command({ endSessions: true });
      await person.tokenExpires();
      await person.press('button', 'Save', { exact: true });
      await person.confirm('Save');
      const ended = person.by('dialog', 'Your session has ended');
      await ended.waitFor();
      await person.assertAccessible('an ended session');
      await ended.getByRole('button', { name: 'Sign in' }).click();
      // The page below the dialog has the same heading, until the browser leaves it.
      await ended.waitFor({ state: 'detached' });
      await person.by('heading', 'Settings of production').waitFor();
      assert.equal(await person.by('textbox', 'Metadata as JSON').inputValue(), '{"team": "shop"}');
      await person.press('button', 'Discard changes');
      await person.go('/production/flags/sessions?tab=rollout');
      assert.equal(await person.by('spinbutton', 'Percent').inputValue(), '40');
      await person.leave();
    } finally {
      await installation.stop();
    }
  });

  it('keeps the session while the issuer is down, also when the page is loaded again', async () => {
    const installation = await new Installation().start({ issuer: true });
    try {
      await installation.createFlag('production', { key: 'outage', enabled: true, rolloutPercentage: 5 });
      await installation.issuer.command({ subject: 'ada', groups: ['admin'] });
      await installation.issuer.command({ tokenSeconds: 2 });
      const expected = [/^401 /, /^503 POST \/token$/];
      const person = await Person.open(browser, installation, '/production/flags/outage?tab=rollout', { token: null, expected });
      const { page } = person;
      const percent = person.by('spinbutton', 'Percent');
      await person.press('button', 'Sign in');
      await percent.fill('30');

      await person.tokenExpires();
      await page.route('**/token', (route) => route.fulfill({ status: 503, headers: { 'access-control-allow-origin': '*' }, body: 'down' }));
      await person.press('button', 'Save rollout');
      await person.confirm('Save rollout');
      await person.sees('The server cannot be reached.');
      await page.unroute('**/token');
      await person.seesNo('The server cannot be reached. What you see');
      assert.equal(await percent.inputValue(), '30');
      await person.press('button', 'Save rollout');
      await person.confirm('Save rollout');
      await person.sees('outage is at 30 % in production.');

      await page.route('**/token', (route) => route.abort());
      await page.reload();
      await person.sees('The server cannot be reached.');
      await page.unroute('**/token');
      await percent.waitFor();
      assert.equal(await percent.inputValue(), '30');
      await person.leave();
    } finally {
      await installation.stop();
    }
  });

  /** Without a page of the issuer for the end of the session, the browser does not leave the console. */
  const stay = async ({ page }) => {
    await page.route('**/console/config.json', async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, json: { ...await response.json(), endSessionEndpoint: null } });
    });
    await page.reload();
  };
  /** Waits until the page knows who has signed in: the end of a session then leaves the page, under a dialog. */
  const known = (person) => person.sees(/ada · admin/);
  const rejected = (status, error) => (route) => route.fulfill({ status, headers: { 'access-control-allow-origin': '*' }, json: { error } });

  it('ends the session when the issuer or the API rejects it, and resumes it for nobody', async () => {
    const installation = await new Installation().start({ issuer: true });
    try {
      await installation.createFlag('production', { key: 'ended', enabled: true, rolloutPercentage: 5 });
      await installation.issuer.command({ subject: 'ada', groups: ['admin'] });
      const expected = [/^401 /, /^403 POST \/token$/];
      const person = await Person.open(browser, installation, '/production/flags/ended?tab=rollout', { token: null, expected });
      const { page } = person;
      const ended = person.by('dialog', 'Your session has ended');
      await stay(person);
      await person.press('button', 'Sign in');
      await person.by('spinbutton', 'Percent').fill('40');
      await known(person);

      // Auth0 answers 403 to a refresh token that has expired.
      await page.route('**/api/**', rejected(401, 'Unauthorized'));
      await page.route('**/token', rejected(403, 'invalid_grant'));
      await person.go('/production/keys');
      await ended.waitFor();
      await page.unroute('**/token');
      await page.unroute('**/api/**');
      await ended.getByRole('button', { name: 'Sign in' }).click();
      // The page below the dialog shows the name too, until the browser leaves it.
      await ended.waitFor({ state: 'detached' });
      await known(person);

      // The API rejects the renewed token too.
      await page.route('**/api/**', rejected(401, 'Unauthorized'));
      await person.go('/production/activity');
      await ended.waitFor();
      await ended.getByRole('button', { name: 'Cancel' }).click();
      await person.by('heading', 'Sign in').waitFor();
      await page.unroute('**/api/**');
      await page.reload();
      await person.by('heading', 'Sign in').waitFor();
      await person.seesNo('The server did not accept this sign-in.');

      // Unsaved changes wait for the same person.
      await person.press('button', 'Sign in');
      await person.by('heading', 'Activity in production').waitFor();
      await person.go('/production/flags/ended?tab=rollout');
      assert.equal(await person.by('spinbutton', 'Percent').inputValue(), '40');
      await person.leave();
    } finally {
      await installation.stop();
    }
  });

  it('stays signed out when a token is renewed during the sign-out', async () => {
    const installation = await new Installation().start({ issuer: true });
    try {
      await installation.issuer.command({ subject: 'ada', groups: ['admin'] });
      await installation.issuer.command({ tokenSeconds: 2 });
      const person = await Person.open(browser, installation, '/production/flags', { token: null, expected: [/^401 /] });
      const { page } = person;
      await stay(person);
      await person.press('button', 'Sign in');
      await person.sees('This environment has no active flags.');
      await person.tokenExpires();
      const requested = new Promise((resolve) => {
        void page.route('**/token', resolve);
      });
      await person.press('link', 'API keys');
      await requested;
      await person.press('button', 'Sign out');
      await person.by('button', 'Sign in').waitFor();
      assert.equal(await page.evaluate(() => sessionStorage.getItem('pennon.refresh')), null);
      await person.leave();
    } finally {
      await installation.stop();
    }
  });

  it('lets an editor of staging change flags there, and only view them in production', async () => {
    const installation = await new Installation().start({ issuer: true });
    try {
      await installation.environment('staging');
      for (const env of ['production', 'staging']) await installation.createFlag(env, { key: 'roles', enabled: true, rolloutPercentage: 5 });
      await installation.issuer.command({ subject: 'eve', groups: ['editor:staging'] });
      const person = await Person.open(browser, installation, '/production/flags/roles?tab=rollout', { token: null });
      await person.press('button', 'Sign in');
      await person.by('button', 'Save rollout').and(person.page.locator('[aria-disabled=true]')).waitFor();
      // Only the missing role disables this button; "Save rollout" is also disabled because the rollout is unchanged.
      const refused = person.page.locator('[aria-disabled=true][title="Needs the role editor:production"]');
      await person.by('button', 'Turn off: roles').and(refused).waitFor();
      await person.sees(/needs the role editor:production/);
      await person.go('/staging/flags/roles?tab=rollout');
      await person.by('spinbutton', 'Percent').fill('30');
      await person.press('button', 'Save rollout');
      await person.sees('roles is at 30 % in staging.');
      await person.leave();
    } finally {
      await installation.stop();
    }
  });
});
