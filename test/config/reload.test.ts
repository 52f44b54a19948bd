/** SIGHUP: what may change while the daemon runs is taken over whole, or not at all. Needs root. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'smol-toml';
import t from 'tap';
import { RoleTable } from '../../agent/access/role-table.js';
import { configFrom } from '../../agent/config/config.js';
import { reloaded } from '../../agent/config/reload.js';
import { failureOf, MiB, prepare, verb } from '../exports/rig.js';
import type { DaemonConfig, DaemonHandle } from '../host/daemon.js';
import { type Host, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import { smallImage } from '../points-in-time/rig.js';
import { makePki, type Pki } from '../tls/pki.js';

t.setTimeout(300_000);

const PORT = 16520;

let host: Host;
let pki: Pki;
let daemon: DaemonHandle;
let config: DaemonConfig;
let image = '';

t.before(async () => {
  host = await startHost(t);
  pki = await makePki(join(host.dir, 'pki'));
  image = await smallImage({ host, name: 'image.qcow2' });
  config = {
    rpc: { https: [`127.0.0.1:${PORT}`] },
    tls: pki.tls,
    limits: { scratchReserve: MiB },
    roles: [{ identity: 'dns:admin.example', role: 'observer', vms: ['*'] }],
  };
  daemon = await host.startDaemon(config);
});

let said = 0;
/** Writes the file anew and signals; returns what the daemon has said of it. */
async function reload(text: DaemonConfig | string): Promise<string> {
  const file = join(host.dir, 'vmdiskd-1.toml');
  writeFileSync(file, typeof text === 'string' ? text : stringify(text));
  said = daemon.log().length;
  await host.must('kill', ['-HUP', String(daemon.pid)]);
  await poll('the daemon to have read it', 30_000, () =>
    /configuration|restart/.test(daemon.log().slice(said)),
  );
  await verb(daemon, 'getHostInfo', {}); // all that it had to say is said
  return daemon.log().slice(said);
}

async function nameOfError(method: string, params: object): Promise<string | undefined> {
  const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method, params });
  const to = ['--data-binary', body, `https://127.0.0.1:${PORT}/`];
  return JSON.parse(await host.must('curl', [...pki.curl('admin'), ...to])).error?.data.name;
}
const teardown = () => nameOfError('teardownBackupDisk', { exportId: 'none' });
const byPath = (exportId: string) => prepare(daemon, { exportId, path: image, format: 'qcow2' });

t.test('roles, limits, deadlines and the level of the log are taken over', async (t) => {
  t.equal(await teardown(), 'NotAuthorized');
  await byPath('one');
  const limits = { scratchReserve: MiB, exports: 1, deadlineSeconds: { listDisks: 7 } };
  const roles = [{ identity: 'dns:admin.example', role: 'admin' }];
  const heard = await reload({ ...config, roles, limits, log: { level: 'debug' } });
  t.match(heard, /"changed":\["roles","log.level","limits.exports","limits.deadlineSeconds.listDisks"\]/);
  t.notMatch(heard, /needs a restart/);
  t.equal(await teardown(), undefined, 'the role is another');
  t.equal((await failureOf(byPath('two'))).data.name, 'LimitReached');
  t.match((await verb(daemon, 'getHostInfo', {})).limits, { exports: 1, deadlineSeconds: { listDisks: 7 } });
});

t.test('a role that is taken away is gone, also for who is connected', async (t) => {
  await reload({ ...config, roles: [] });
  t.equal(await teardown(), 'NotAuthorized');
  const table = new RoleTable(configFrom({ roles: [{ identity: 'dns:a', role: 'admin' }] }).roles);
  const connected = table.callerOf(new Set(['dns:a']));
  t.match(connected.grants, [{ role: 'admin' }]);
  table.reload([]);
  t.strictSame(connected.grants, []);
});

t.test('what needs a restart is named once, and not taken over; the rest is', async (t) => {
  const heard = await reload({
    ...config,
    paths: { state: '/var/lib/elsewhere' },
    limits: { scratchReserve: MiB, clients: 7, exports: 5 },
    log: { level: 'warn' },
  });
  t.match(heard, /"level":"warn".*"msg":"needs a restart: paths.state, limits.clients"/);
  t.notMatch(heard, /"msg":"verb"/, 'the level is another');
  t.match((await verb(daemon, 'getHostInfo', {})).limits, { clients: 64, exports: 5 });
});

t.test('a mistake leaves all as it was, and is told with file, key and what is allowed', async (t) => {
  const before = await verb(daemon, 'getHostInfo', {});
  const limits = { scratchReserve: MiB, exports: 9 };
  const bad: [DaemonConfig | string, RegExp][] = [
    [
      { ...config, limits, log: { level: 'loud' } },
      /vmdiskd-1.toml: log.level is .*loud.*; allowed: .*trace/,
    ],
    ['[limits', /vmdiskd-1.toml:1:\d+: not valid TOML/],
    [{ ...config, limits, tls: { ...pki.tls, cert: '/nowhere.pem' } }, /nowhere.pem/],
    [{ ...config, limits, tls: { ...pki.tls, cert: image } }, /stays as it was: ./],
    // Fine by itself, but the daemon goes on listening where certificates are needed.
    [{ limits }, /tls.cert is .{2,4}; allowed: a PEM file, since rpc listens/],
  ];
  for (const [text, told] of bad) {
    const heard = await reload(text);
    const errors = heard.split('\n').filter((line) => line.includes('"level":"error"'));
    t.equal(errors.length, 1, heard);
    t.match(errors[0], /could not be taken over, and all of it stays as it was: /);
    t.match(errors[0], told);
  }
  t.strictSame(await verb(daemon, 'getHostInfo', {}), before);
  t.equal(await teardown(), 'NotAuthorized', 'who may do what, too; and it is answered over TLS');
});

t.test('options are sorted by the schema', async (t) => {
  const before = configFrom({ limits: { exports: 3 }, roles: [{ identity: 'dns:a', role: 'admin' }] });
  t.strictSame(reloaded(before, before), { config: before, changed: [], needRestart: [] });
  const fresh = configFrom({ hostId: 'other', hotplug: { allowedHosts: ['192.0.2.1'] } });
  const { config, changed, needRestart } = reloaded(before, fresh);
  t.strictSame(changed, ['roles', 'hotplug.allowedHosts', 'limits.exports']);
  t.strictSame(needRestart, ['hostId']);
  t.match(config, { hostId: before.hostId, roles: [], hotplug: { allowedHosts: ['192.0.2.1'] } });
  t.throws(() => Object.assign(config.limits, { exports: 1 }), TypeError);
});
