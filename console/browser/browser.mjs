// Opens the console in Chromium, and fails a test for everything that a person would not see: violations of the
// Content-Security-Policy or of Trusted Types, errors of scripts, and responses that the test does not expect.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { after, before } from 'node:test';
import { chromium } from 'playwright-core';
import { eventually, settled, TOKEN } from './services.mjs';

const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
/** `headless-shell` comes first: without the parts for a screen, the tests take half of the processor time. */
const PROGRAMS = [
  process.env.CHROMIUM,
  '/usr/bin/chromium-headless-shell',
  '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
];

export async function startBrowser() {
  const executablePath = PROGRAMS.find((path) => path && existsSync(path));
  assert.ok(executablePath, 'Chromium is not installed: run scripts/tools, or set CHROMIUM to its path');
  // In containers there is no sandbox for root, and little shared memory.
  return chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
}

/** Serves the built files of `CONSOLE_DIST` instead of those in the binary, to try a change without building Rust. */
async function serveFromDisk(context) {
  const folder = process.env.CONSOLE_DIST;
  if (!folder) return;
  for (const [name, contentType] of [['app.js', 'text/javascript'], ['app.css', 'text/css'], ['programs.json', 'application/json']]) {
    await context.route(`**/console/${name}`, (route) => route.fulfill({ path: `${folder}/${name}`, contentType }));
  }
}

/** Starts an installation and a browser for the tests of the surrounding `describe`; returns a function that opens the console. */
export function useConsole(installation) {
  let browser;
  const stop = async () => {
    await browser?.close();
    await installation.stop();
  };
  before(async () => {
    try {
      await settled([startBrowser().then((started) => (browser = started)), installation.start()]);
    } catch (error) {
      // Processes that have started would keep the test run from ending.
      await stop();
      throw error;
    }
  });
  after(stop);
  return (path, options) => Person.open(browser, installation, path, options);
}

/** One person at the console. */
export class Person {
  /** `path` is an address below /console. `expected` matches `"412 PATCH /api/…"` of failures that the test causes. */
  static async open(browser, installation, path, { expected = [], token = TOKEN, ...options } = {}) {
    const self = new Person();
    self.context = await browser.newContext({ locale: 'en-GB', timezoneId: 'Europe/Berlin', ...options });
    await serveFromDisk(self.context);
    // The violations themselves are console errors of Chromium; this adds the line of the script.
    await self.context.addInitScript(() => {
      addEventListener('securitypolicyviolation', (event) => {
        console.error(`violation of ${event.effectiveDirective}: ${event.blockedURI} in ${event.sourceFile}:${event.lineNumber} ${event.sample}`);
      });
    });
    self.page = await self.context.newPage();
    self.page.setDefaultTimeout(60_000);
    self.installation = installation;
    self.expected = [/^404 GET \/api\/admin\/flags\/[^/]+\/ramp$/, ...expected];
    self.problems = [];
    self.page.on('request', (request) => {
      self.authorization = request.headers().authorization ?? self.authorization;
    });
    self.page.on('pageerror', (error) => self.problems.push(`error: ${error.stack ?? error}`));
    self.page.on('console', (message) => {
      // Failed requests are judged by their responses.
      if (['error', 'warning'].includes(message.type()) && !message.text().startsWith('Failed to load resource')) self.problems.push(message.text());
    });
    self.page.on('response', (response) => {
      const text = `${response.status()} ${response.request().method()} ${new URL(response.url()).pathname}`;
      if (response.status() >= 400 && !self.expected.some((pattern) => pattern.test(text))) self.problems.push(text);
    });
    await self.page.goto(`${installation.url}/console${path}${token ? `#token=${token}` : ''}`);
    return self;
  }

  /** Opens another page of the console as a link does, without loading it again, and waits for its data. */
  async go(path) {
    await this.page.evaluate((to) => {
      history.pushState(null, '', to);
      dispatchEvent(new PopStateEvent('popstate'));
    }, `/console${path}`);
    await this.page.waitForLoadState('networkidle');
    await this.page.locator('h1').waitFor();
  }

  /** The element with this role whose accessible name contains `name`, or equals it with `exact`. */
  by(role, name, options = {}) {
    return this.page.getByRole(role, { ...(name !== undefined && { name }), ...options });
  }

  async press(role, name, options = {}) {
    await this.by(role, name, options).click();
  }

  async sees(text) {
    await this.page.getByText(text).first().waitFor();
  }

  async seesNo(text) {
    await this.page.getByText(text).first().waitFor({ state: 'detached' });
  }

  /** Answers the dialog that asks before a change. */
  async confirm(action) {
    await this.by('dialog').getByRole('button', { name: action, exact: true }).click();
  }

  /** Fails if the page has an accessibility problem that axe-core finds, in the light or in the dark scheme. */
  async assertAccessible(what) {
    // Evaluated by the debugger, which no policy forbids.
    if (!(await this.page.evaluate(() => 'axe' in window))) await this.page.evaluate(AXE);
    // In the dark scheme, only the rules about colors can have another result.
    for (const [colorScheme, runOnly] of [['dark', ['color-contrast', 'link-in-text-block']], ['light']]) {
      await this.page.emulateMedia({ colorScheme });
      const { violations } = await this.page.evaluate((rules) => axe.run(document, { resultTypes: ['violations'], runOnly: rules }), runOnly);
      const found = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.html.slice(0, 200)).join(' | ')}`);
      assert.deepEqual(found, [], `accessibility of ${what} in the ${colorScheme} scheme`);
    }
  }

  /** Waits until the API rejects the access token that the console sent last. */
  async tokenExpires() {
    const { authorization } = this;
    const rejected = async () => (await fetch(`${this.installation.url}/api/admin/flags`, { headers: { authorization } })).status === 401;
    await eventually(rejected, () => 'the access token is still accepted');
  }

  async leave() {
    await this.context.close();
    assert.deepEqual(this.problems, [], 'violations, errors and unexpected responses in the browser');
  }
}
