// The alarms that guard a ramp, as its page shows them.
import { describe, it } from 'node:test';
import { useConsole } from './browser.mjs';
import { Installation } from './services.mjs';

describe('guards', () => {
  const installation = new Installation();
  const open = useConsole(installation);

  it('shows the state of each alarm in words', async () => {
    await installation.createFlag('production', { key: 'guarded', enabled: true, rolloutPercentage: 5 });
    await installation.setAlarm('errors', 'OK');
    const ramp = {
      steps: [{ percent: 10, bakeSeconds: 3600 }, { percent: 100, bakeSeconds: 3600 }],
      guards: [{ alarm: 'errors', onMissing: 'hold' }, { alarm: 'latency', onMissing: 'ignore' }],
    };
    await installation.api('POST', '/api/admin/flags/guarded/ramp?environment=production', ramp, { 'if-match': '*' });
    await installation.setAlarm('latency', 'INSUFFICIENT_DATA');
    const person = await open('/production/flags/guarded?tab=ramp');
    const guard = (alarm) => person.by('listitem').filter({ hasText: alarm });
    await guard('errors').getByText('OK', { exact: true }).waitFor();
    await guard('latency').getByText('not enough data', { exact: true }).waitFor();
    await person.assertAccessible('the alarms of a ramp');
    await installation.setAlarm('errors', 'ALARM');
    await person.page.reload();
    await guard('errors').getByText('in alarm', { exact: true }).waitFor();
    await person.leave();
  });
});
