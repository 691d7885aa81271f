// Starts what the console's tests run against: PostgreSQL, Redis, and the local server that serves API and console.
import { spawn, spawnSync } from 'node:child_process';
import { createServer } from 'node:net';
import { chownSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** Programs of the workspace; `scripts/test` builds them. */
const BUILT = process.env.PENNON_BUILT ?? new URL('../../target/debug', import.meta.url).pathname;
const TIME_LIMIT = 30_000;

/**
 * Long timeouts, as in tests/src/stack.rs. With the defaults, healthy servers on a busy machine may respond too late:
 * the service then answers 503, or does not use the cache.
 */
const LONG_TIMEOUTS = {
  CACHE_CONNECT_TIMEOUT_MS: '2000',
  CACHE_OPERATION_TIMEOUT_MS: '500',
  CACHE_BUDGET_MS: '500',
  DATABASE_CONNECT_TIMEOUT_MS: '10000',
  DATABASE_TIMEOUT_MS: '15000',
};

export const TOKEN = 'admin-token-of-the-browser-tests';

/** Waits for a condition, and fails after half a minute with the message that `what` returns. */
export async function eventually(condition, what) {
  const deadline = Date.now() + TIME_LIMIT;
  for (;;) {
    try {
      if (await condition()) return;
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
    if (Date.now() > deadline) throw new Error(`${what()} after ${TIME_LIMIT / 1000} s`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

/** Waits for all, even if one fails, so that the caller can stop what has started. */
export async function settled(promises) {
  const results = await Promise.allSettled(promises);
  const failed = results.find(({ status }) => status === 'rejected');
  if (failed) throw failed.reason;
}

let portsGiven = 0;

/**
 * A free port, different for each call. It is below the range of ephemeral ports, because the system could give one of
 * those to an outgoing connection before the server has bound it, and above the ports of the Rust tests.
 */
async function freePort() {
  for (;;) {
    // Concurrent test processes begin at different ports.
    const port = 30_000 + ((process.pid * 97 + portsGiven++) % 2_000);
    const isFree = await new Promise((done) => {
      const server = createServer();
      server.once('error', () => done(false));
      server.listen(port, '127.0.0.1', () => server.close(() => done(true)));
    });
    if (isFree) return port;
  }
}

/** The path of a program of PostgreSQL, which packages do not always install in PATH. */
function postgresProgram(name) {
  const folders = (process.env.PATH ?? '').split(':');
  for (const parent of ['/usr/lib/postgresql', '/opt/homebrew/opt']) {
    if (existsSync(parent)) folders.push(...readdirSync(parent).map((entry) => join(parent, entry, 'bin')));
  }
  const found = folders.map((folder) => join(folder, name)).find(existsSync);
  if (!found) throw new Error(`${name} is not installed: run scripts/tools`);
  return found;
}

/** PostgreSQL refuses to run as root. For root, the user that its package created runs it, or `nobody`. */
function postgresUser() {
  if (process.getuid?.() !== 0) return undefined;
  const users = readFileSync('/etc/passwd', 'utf8').split('\n').map((line) => line.split(':'));
  const user = ['postgres', 'nobody'].map((name) => users.find((fields) => fields[0] === name)).find(Boolean);
  return user && Number(user[2]);
}

/** A process whose last output explains a failure. */
class Process {
  constructor(program, args, options = {}) {
    this.output = '';
    this.child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], ...options });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.on('data', (data) => {
        this.output = (this.output + data).slice(-4000);
      });
    }
    this.ended = new Promise((done) => this.child.once('close', done));
  }

  async stop(signal = 'SIGKILL') {
    this.child.kill(signal);
    await this.ended;
  }
}

class Postgres {
  async create() {
    this.folder = await mkdtemp(join(tmpdir(), 'pennon-console-'));
    this.user = postgresUser();
    if (this.user !== undefined) chownSync(this.folder, this.user, -1);
    this.port = await freePort();
    const data = join(this.folder, 'data');
    const args = ['--auth', 'trust', '--username', 'pennon', '--encoding', 'UTF8', '--no-sync', '--locale', 'C', '--pgdata', data];
    const made = spawnSync(postgresProgram('initdb'), args, { uid: this.user, cwd: this.folder, encoding: 'utf8' });
    if (made.status !== 0) throw new Error(`initdb: ${made.stderr}`);
    await this.start();
    return this;
  }

  get url() {
    return `postgresql://pennon@127.0.0.1:${this.port}/postgres?sslmode=disable`;
  }

  async start() {
    const settings = ['listen_addresses=127.0.0.1', 'unix_socket_directories=', 'fsync=off', 'max_connections=50'];
    const args = ['-D', join(this.folder, 'data'), '-p', String(this.port), ...settings.flatMap((setting) => ['-c', setting])];
    this.process = new Process(postgresProgram('postgres'), args, { uid: this.user, cwd: this.folder });
    await eventually(() => this.process.output.includes('ready to accept connections'), () => `postgres: ${this.process.output}`);
  }

  /** Ends all connections at once. */
  stop() {
    return this.process.stop('SIGQUIT');
  }

  async remove() {
    if (this.process) await this.stop();
    if (this.folder) await rm(this.folder, { recursive: true, force: true });
  }
}

class Redis {
  async create() {
    this.port = await freePort();
    await this.start();
    return this;
  }

  get url() {
    return `redis://127.0.0.1:${this.port}`;
  }

  async start() {
    this.process = new Process('redis-server', ['--port', String(this.port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']);
    await eventually(() => this.process.output.includes('Ready to accept connections'), () => `redis: ${this.process.output}`);
  }

  stop() {
    return this.process?.stop();
  }
}

/** An OpenID Connect issuer that signs everybody in at once. Its commands are lines of JSON. */
class Issuer {
  async create() {
    this.process = new Process(join(BUILT, 'console-issuer'), []);
    this.lines = createInterface({ input: this.process.child.stdout })[Symbol.asyncIterator]();
    this.settings = JSON.parse((await this.lines.next()).value);
    return this;
  }

  async command(command) {
    this.process.child.stdin.write(`${JSON.stringify(command)}\n`);
    const { value } = await this.lines.next();
    if (value !== 'ok') throw new Error(`issuer: ${value}`);
  }

  stop() {
    return this.process?.stop();
  }
}

/** One installation with servers of its own. */
export class Installation {
  /**
   * With `issuer`, people sign in; without, the console takes the admin token of the local server. A test of a server
   * that does not respond starts with `timeouts: {}`, the defaults.
   */
  async start({ issuer = false, timeouts = LONG_TIMEOUTS } = {}) {
    this.folder = await mkdtemp(join(tmpdir(), 'pennon-console-'));
    // Assigned to fields before they start, so that `stop` can end those that have started if another one fails.
    this.postgres = new Postgres();
    this.redis = new Redis();
    if (issuer) this.issuer = new Issuer();
    await settled([this.postgres, this.redis, this.issuer].map((service) => service?.create()));
    this.port = await freePort();
    this.url = `http://127.0.0.1:${this.port}`;
    this.server = new Process(join(BUILT, 'pennon-local'), [], {
      cwd: this.folder,
      env: {
        PATH: process.env.PATH,
        PENNON_LISTEN: `127.0.0.1:${this.port}`,
        PENNON_ADMIN_TOKEN: TOKEN,
        PENNON_API_KEY: '',
        DATABASE_URL: this.postgres.url,
        REDIS_URL: this.redis.url,
        ...timeouts,
        ...this.issuer?.settings,
      },
    });
    await eventually(async () => (await fetch(`${this.url}/health`)).ok, () => `pennon-local: ${this.server.output}`);
    return this;
  }

  /** Sets an alarm of ramps; `ALARM` rolls back the ramps that it guards. */
  setAlarm(name, state) {
    return this.api('PUT', `/local/alarms/${name}`, { state });
  }

  /** Changes the database without the service. */
  sql(statement) {
    const { status, stderr } = spawnSync(postgresProgram('psql'), ['--quiet', '--set=ON_ERROR_STOP=1', '--command', statement, this.postgres.url], { encoding: 'utf8' });
    if (status !== 0) throw new Error(`psql: ${stderr}`);
  }

  /** A request of an admin. Throws unless the response is a success. */
  async api(method, path, body, headers = {}) {
    const response = await fetch(`${this.url}${path}`, {
      method,
      headers: { authorization: `Bearer ${TOKEN}`, 'content-type': 'application/json', ...headers },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text === '' ? undefined : JSON.parse(text);
  }

  /** Creates an environment that no other test uses. */
  async environment(name) {
    await this.api('POST', '/api/admin/environments', { environment: name });
    return name;
  }

  flag(environment, key) {
    return this.api('GET', `/api/admin/flags/${encodeURIComponent(key)}?environment=${environment}`);
  }

  createFlag(environment, flag) {
    return this.api('POST', `/api/admin/flags?environment=${environment}`, flag);
  }

  async stop() {
    await this.server?.stop('SIGTERM');
    await Promise.all([this.postgres?.remove(), this.redis?.stop(), this.issuer?.stop()]);
    if (this.folder) await rm(this.folder, { recursive: true, force: true });
  }
}
