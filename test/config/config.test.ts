import { spawnSync } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Test, test } from 'tap';
import { verbSchemas } from '../../agent/api/schemas.js';
import { configFrom, loadConfig } from '../../agent/config/config.js';
import { ConfigError } from '../../agent/config/error.js';
import { showConfig } from '../../agent/config/show.js';

/** What is wrong with these files, one line a mistake; the folder's name left out. */
function mistakes(t: Test, main: string, parts: Record<string, string> = {}): string[] {
  const folder = t.testdir({ 'vmdiskd.toml': main, 'conf.d': parts });
  try {
    loadConfig(join(folder, 'vmdiskd.toml'));
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.message.replaceAll(`${folder}/`, '').split('\n');
  }
}

test('every option has a default', async (t) => {
  const config = configFrom({});
  t.match(config, {
    libvirt: { uri: 'qemu:///system', socket: '' },
    rpc: { socket: '/run/vmdiskd/vmdiskd.sock', group: 'vmdiskd' },
    paths: { run: '/run/vmdiskd', state: '/var/lib/vmdiskd', scratch: '/var/lib/vmdiskd/scratch' },
    images: { allowedRoots: ['/var/lib/libvirt/images'] },
    qemu: { group: 'libvirt-qemu' },
    hotplug: { allowedHosts: [] },
    log: { level: 'info' },
    limits: { clients: 64, frameBytes: 1048576, batch: 100, verbs: 32, exports: 256 },
  });
  for (const { name, deadlineSeconds } of Object.values(verbSchemas)) {
    t.equal(config.limits.deadlineSeconds[name as keyof typeof verbSchemas], deadlineSeconds, name);
  }
  t.match(config.hostId, /^[0-9a-f]{32}$/, 'the machine id is not shown, but something made of it');
  t.equal(configFrom({}).hostId, config.hostId, 'always the same');
});

test('it cannot be changed', async (t) => {
  const config = configFrom({});
  t.throws(() => Object.assign(config.limits.deadlineSeconds, { getHostInfo: 1 }), TypeError);
  t.throws(() => Object.assign(config.images.allowedRoots, { 0: '/' }), TypeError);
  t.equal(configFrom({}).images.allowedRoots[0], '/var/lib/libvirt/images');
});

test('files are merged in the order of their names, lists replaced whole', async (t) => {
  const folder = t.testdir({
    'vmdiskd.toml': '[rpc]\nsocket = "/a"\ngroup = "a"\n[images]\nallowedRoots = ["/1", "/2"]\n',
    'conf.d': {
      '20-b.toml': '[rpc]\nsocket = "/c"\n[limits.deadlineSeconds]\n"rpc.discover" = 7\n',
      '10-a.toml': '[rpc]\nsocket = "/b"\n[images]\nallowedRoots = ["/3"]\n',
      'ignored.conf': 'not TOML at all',
    },
  });
  const config = loadConfig(join(folder, 'vmdiskd.toml'));
  t.match(config.rpc, { socket: '/c', group: 'a' });
  t.strictSame(config.images.allowedRoots, ['/3']);
  t.equal(config.limits.deadlineSeconds['rpc.discover'], 7);
});

test('a mistake names file, key and what is allowed; all at once', async (t) => {
  t.strictSame(
    mistakes(t, '[rpc]\nsoket = "/a"\n[limits]\nclients = 0\n', {
      'x.toml': 'hostId = 7\n[libvirt]\nuri = "xen:///"\n[log]\nlevel = "loud"\n',
    }).sort(),
    [
      'conf.d/x.toml: hostId is 7; allowed: a string of 0-64 characters that matches ^[A-Za-z0-9_.-]*$',
      'conf.d/x.toml: libvirt.uri is "xen:///"; allowed: "qemu:///system", "qemu:///session"',
      'conf.d/x.toml: log.level is "loud"; allowed: "trace", "debug", "info", "warn", "error", "fatal"',
      'vmdiskd.toml: limits.clients is 0, which must be >= 1; allowed: an integer from 1 to 4096',
      'vmdiskd.toml: rpc.soket is not an option; allowed here: socket, group, tls, https, wss',
    ],
  );
  t.match(mistakes(t, 'rpc = 1\n'), [/^vmdiskd\.toml: rpc is 1; allowed: a table$/]);
  t.match(mistakes(t, '[images]\nallowedRoots = ["relative"]\n'), [
    /^vmdiskd\.toml: images\.allowedRoots\.0 is "relative"/,
  ]);
  t.match(mistakes(t, `[rpc]\nsocket = "/${'x'.repeat(107)}"\n`), [
    /rpc\.socket .* a string of 2-107 characters/,
  ]);
  t.match(mistakes(t, '[limits.deadlineSeconds]\nnoVerb = 1\n'), [
    /deadlineSeconds\.noVerb is not an option.*getHostInfo/,
  ]);
  const hosts = ['gw:0', '[10.0.0.1]:1', 'gw:65536', '[fe80::1]', 'gw.example', '[fe80::1]:1', '192.0.2.1:1'];
  t.match(mistakes(t, `[hotplug]\nallowedHosts = ${JSON.stringify(hosts)}\n`), [
    /hotplug\.allowedHosts\.0 is "gw:0"; allowed: a port from 1 to 65535, or none/,
    /hotplug\.allowedHosts\.1 is "\[10\.0\.0\.1\]:1"; allowed: an IPv6 address in the brackets/,
    /hotplug\.allowedHosts\.2 is "gw:65536"/,
  ]);
  t.match(mistakes(t, '[hotplug]\nallowedHosts = ["fe80::1"]\n'), [/hotplug\.allowedHosts\.0 .* must match/]);
  t.match(mistakes(t, '"__proto__" = 1\n'), [/^vmdiskd\.toml: __proto__ is not an option/]);
  t.match(mistakes(t, 'hostId = 2026-01-01\n'), [/hostId is .*2026-01-01/]);
});

test('ports that nobody could connect to, and an advertised name with one', async (t) => {
  const allowed = 'allowed: a port from 1 to 65535';
  t.strictSame(
    mistakes(
      t,
      '[gateway]\nlisten = ["0.0.0.0:10809", "[::]:65536"]\nadvertise = "backup.example:10809"\n' +
        '[tls]\ncert = "/c"\nkey = "/k"\nclientCa = "/a"\n',
      { 'x.toml': '[rpc]\ntls = ["host:99999"]\nhttps = ["[::1]:0"]\nwss = ["host:00000"]\n' },
    ),
    [
      `conf.d/x.toml: rpc.tls.0 is "host:99999"; ${allowed}`,
      `conf.d/x.toml: rpc.https.0 is "[::1]:0"; ${allowed}`,
      `conf.d/x.toml: rpc.wss.0 is "host:00000"; ${allowed}`,
      `vmdiskd.toml: gateway.listen.1 is "[::]:65536"; ${allowed}`,
      'vmdiskd.toml: gateway.advertise is "backup.example:10809"; allowed: a name or address without a port, ' +
        'which is that of the first of gateway.listen',
    ],
  );
  for (const advertise of ['2001:db8::1', '192.0.2.10', 'backup.example']) {
    t.equal(
      configFrom({ gateway: { listen: ['host:1', '[::1]:65535'], advertise } }).gateway.advertise,
      advertise,
    );
  }
});

test('metrics are not for the network', async (t) => {
  for (const listen of ['', '/run/m.sock', '127.0.0.1:9737', '127.8.8.8:1', '[::1]:9737', 'localhost:9737']) {
    t.equal(configFrom({ metrics: { listen } }).metrics.listen, listen);
  }
  for (const listen of [
    '0.0.0.0:9737',
    '192.0.2.1:9737',
    '[::]:9737',
    'host:9737',
    '127.0.0.1:0',
    '127.example:1',
  ]) {
    const told = mistakes(t, `[metrics]\nlisten = "${listen}"\n`);
    t.match(
      told,
      [/^vmdiskd\.toml: metrics\.listen is .*; allowed: a loopback address .* with a port/],
      listen,
    );
  }
});

test('a syntax error names line and column', async (t) => {
  t.match(mistakes(t, '[rpc]\nsocket = \n'), [/^vmdiskd\.toml:2:\d+: not valid TOML: /]);
  t.match(mistakes(t, '', { 'x.toml': 'a = 1\na = 2\n' }), [/^conf\.d\/x\.toml:2:\d+: not valid TOML: /]);
});

test('a file that was asked for must be there; the default one need not', async (t) => {
  const folder = t.testdir({ 'conf.d': 'a file, not a folder' });
  t.throws(() => loadConfig(join(folder, 'none.toml')), /none\.toml: cannot be read/);
  t.throws(() => loadConfig(folder), /cannot be read/);
  const file = join(t.testdir({ 'vmdiskd.toml': '', 'conf.d': 'a file' }), 'vmdiskd.toml');
  t.throws(() => loadConfig(file), /conf\.d: cannot be read/);
});

test('show-config is a configuration file that means the same', async (t) => {
  const config = configFrom({
    hostId: 'h',
    images: { allowedRoots: ['/a "b"', '/ü'] },
    limits: { batch: 7 },
  });
  const text = showConfig(config);
  const file = join(t.testdir({ 'vmdiskd.toml': text }), 'vmdiskd.toml');
  t.strictSame(loadConfig(file), config);
  t.match(text, /# The calls in one batch\.\nbatch = 7\n/);
});

test('without a machine id the host name has to do', async (t) => {
  const config = fileURLToPath(new URL('../../agent/config/config.ts', import.meta.url));
  const script = `
    import fs from 'node:fs';
    import { syncBuiltinESMExports } from 'node:module';
    const read = fs.readFileSync;
    fs.readFileSync = (path, ...rest) => read(path === '/etc/machine-id' ? '/nonexistent' : path, ...rest);
    syncBuiltinESMExports();
    const { configFrom } = await import(${JSON.stringify(config)});
    process.stdout.write(configFrom({}).hostId);`;
  const run = spawnSync(process.execPath, ['--import=tsx', '--input-type=module', '-e', script], {
    encoding: 'utf8',
  });
  const ofHostName = createHmac('sha256', hostname()).update('vmdiskd').digest('hex').slice(0, 32);
  t.equal(run.stdout, ofHostName, run.stderr);
});
