// Takes the pictures of docs/console.md: `npm run screenshots`, after `cargo build`.
import { mkdir } from 'node:fs/promises';
import { Person, startBrowser } from './browser.mjs';
import { Installation } from './services.mjs';

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
const person = await Person.open(browser, installation, '/production/flags', { viewport: { width: 1100, height: 620 } });
const picture = (name) => person.page.screenshot({ path: `${folder}console-${name}.png` });
await person.sees('4 flags');
await picture('flags');
await person.go('/production/flags/new-checkout?tab=rollout');
await person.by('spinbutton', 'Percent').fill('25');
await person.by('textbox', 'User ids').fill('alice, bob, carol, dave, erin');
await person.sees(/get it, 0 lose it/);
await picture('rollout');
await person.go('/production/flags/festive-banner?tab=rules');
await person.sees('Rule 1');
await picture('rules');
await person.leave();
await browser.close();
await installation.stop();
