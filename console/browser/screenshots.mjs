// Takes the pictures of docs/console.md: `npm run screenshots`, after `cargo build`.
import { mkdir } from 'node:fs/promises';
import { Person, startBrowser } from './browser.mjs';
import { eventually, Installation } from './services.mjs';

const folder = new URL('../../docs/images/', import.meta.url).pathname;
await mkdir(folder, { recursive: true });
const [installation, browser] = await Promise.all([new Installation().start(), startBrowser()]);
const flags = [
  { key: 'new-checkout', description: 'The checkout in one step', enabled: true, rolloutPercentage: 5 },
  { key: 'search-v2', description: 'Search with suggestions', enabled: true, rolloutPercentage: 100 },
  { key: 'dark-mode', description: 'Dark colours in the shop', enabled: false, rolloutPercentage: 50 },
  {
    key: 'festive-banner', description: 'The banner of the season', enabled: true,
    definition: {
      variants: { none: '', snow: 'snow.svg', lights: 'lights.svg' },
      defaultVariant: 'none',
      targeting: { if: [{ in: [{ var: 'country' }, ['DE', 'AT']] }, 'snow', { fractional: [['none', 90], ['lights', 10]] }] },
    },
  },
];
for (const flag of flags) await installation.createFlag('production', flag);
await installation.environment('staging');
await installation.setAlarm('checkout-errors', 'OK');
const ramp = {
  steps: [{ percent: 5, bakeSeconds: 3600 }, { percent: 25, bakeSeconds: 14400, minEvaluations: 500 }, { percent: 100, bakeSeconds: 3600 }],
  guards: [{ alarm: 'checkout-errors', onMissing: 'hold' }],
};
await installation.createFlag('production', { key: 'new-prices', description: 'Prices with taxes', enabled: true, rolloutPercentage: 1 });
await installation.api('POST', '/api/admin/flags/new-prices/ramp?environment=production', ramp, { 'if-match': '*' });
const { key } = await installation.api('POST', '/api/admin/keys', { kind: 'server', name: 'shop backend' });
for (let user = 0; user < 40; user += 1) {
  await installation.api('POST', '/ofrep/v1/evaluate/flags', { context: { targetingKey: `user-${user}` } }, { authorization: `Bearer ${key}` });
}
const evaluated = async () => (await installation.api('GET', '/api/admin/flags/new-checkout/usage')).evaluations === 40;
await eventually(evaluated, () => 'the evaluations are not counted');
const person = await Person.open(browser, installation, '/production/flags', { viewport: { width: 1240, height: 640 } });
const picture = (name) => person.page.screenshot({ path: `${folder}console-${name}.png` });
await person.sees('5 flags');
await picture('flags');
await person.go('/production/flags/new-checkout?tab=rollout');
await person.by('spinbutton', 'Percent').fill('25');
await person.by('textbox', 'User ids').fill('alice, bob, carol, dave, erin');
await person.sees(/get it, 0 lose it/);
await picture('rollout');
await person.go('/production/flags/festive-banner?tab=rules');
await person.by('heading', 'Rules').evaluate((heading) => heading.scrollIntoView());
await picture('rules');
await person.go('/production/flags/new-prices?tab=ramp');
await person.sees('The ramp is running at 5 %.');
await picture('ramp');
await person.go('/production/flags/festive-banner?tab=explain');
await person.by('textbox', 'Value').first().fill('alice');
await person.by('textbox', 'Value').nth(1).fill('AT');
await person.press('button', 'Explain', { exact: true });
await person.by('heading', 'The steps that decided').waitFor();
await person.page.evaluate(() => scrollTo(0, document.body.scrollHeight));
await picture('explain');
await person.leave();
await browser.close();
await installation.stop();
