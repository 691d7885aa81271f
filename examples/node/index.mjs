// Reads a flag for the user in the first argument.
import { OpenFeature } from '@openfeature/server-sdk';
import { OFREPProvider } from '@openfeature/ofrep-provider';

const { PENNON_URL = 'http://127.0.0.1:9000', PENNON_API_KEY } = process.env;

await OpenFeature.setProviderAndWait(
  new OFREPProvider({ baseUrl: PENNON_URL, headers: [['Authorization', `Bearer ${PENNON_API_KEY}`]] }),
);
const flags = OpenFeature.getClient();
// Without a response, the application continues with its default: off.
const isOn = await flags.getBooleanValue('new-checkout', false, { targetingKey: process.argv[2] ?? 'alice' });
console.log(isOn ? 'on' : 'off');
await OpenFeature.close();
