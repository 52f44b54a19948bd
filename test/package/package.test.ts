/** The package: what is in it, whether its programs run, and what systemd's and AppArmor's own tools say of it. Needs root. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { parse } from 'smol-toml';
import t from 'tap';
import { configFrom } from '../../agent/config/config.js';
import { unitFiles } from '../../agent/config/units.js';
import { confinedProperties, serverProperties } from '../../agent/host/unit-properties.js';
import { startHost } from '../host/host.js';

t.setTimeout(400_000);

const root = fileURLToPath(new URL('../..', import.meta.url));
const dir = mkdtempSync('/tmp/vmd-package-');
t.teardown(() => rmSync(dir, { recursive: true, force: true }));
const tree = join(dir, 'tree');
const read = (path: string): string => readFileSync(join(tree, path), 'utf8');
let deb = '';

/** Of systemd-analyze(1) security, from 0 to 10. */
const DAEMON_EXPOSURE = 2.0;
const GATEWAY_EXPOSURE = 0.8;
const EXPORT_EXPOSURE = 1.0;
const services = ['vmdiskd.service', 'vmdiskd-gateway.service'];

t.before(async () => {
  const tsx = join(root, 'node_modules/.bin/tsx');
  const build = (out: string) =>
    execa(tsx, ['systemd/package.ts', '--out', out], { cwd: root, timeout: 120_000 });
  const { stdout } = await build(dir);
  deb = stdout.trim();
  await execa('dpkg-deb', ['--extract', deb, tree]);
  await execa('dpkg-deb', ['--control', deb, join(dir, 'control')]);
  mkdirSync(join(dir, 'again'));
  const second = (await build(join(dir, 'again'))).stdout.trim();
  await execa('cmp', [deb, second]);
});

t.test('what is in it', async (t) => {
  const expected = [
    ...['usr/sbin/vmdiskd', 'usr/sbin/vmdiskd-gateway', 'usr/bin/vmdiskctl'],
    ...['vmdiskd.service', 'vmdiskd-gateway.service', 'vmdiskd.slice'].map(
      (unit) => `usr/lib/systemd/system/${unit}`,
    ),
    ...['usr/lib/systemd/system-generators/vmdiskd-generator', 'usr/lib/sysusers.d/vmdiskd.conf'],
    ...['usr/lib/tmpfiles.d/vmdiskd.conf', 'etc/vmdiskd/vmdiskd.toml'],
    ...[
      'etc/apparmor.d/abstractions/libvirt-qemu.d/vmdiskd',
      'usr/share/bash-completion/completions/vmdiskctl',
    ],
    ...['man1/vmdiskctl.1', 'man5/vmdiskd.toml.5', 'man8/vmdiskd.8', 'man8/vmdiskd-gateway.8'].map(
      (page) => `usr/share/man/${page}.gz`,
    ),
    ...['copyright', 'third-party-licences', 'operations.md'].map((file) => `usr/share/doc/vmdiskd/${file}`),
  ];
  for (const path of expected) t.ok(existsSync(join(tree, path)), path);
  const control = readFileSync(join(dir, 'control/control'), 'utf8');
  t.match(control, /^Architecture: all$/m);
  t.match(control, /^Depends: nodejs \(>= 20\), qemu-utils/m);
  const conffiles = readFileSync(join(dir, 'control/conffiles'), 'utf8').trim().split('\n');
  t.strictSame(conffiles, [
    '/etc/apparmor.d/abstractions/libvirt-qemu.d/vmdiskd',
    '/etc/vmdiskd/vmdiskd.toml',
  ]);
  const scripts = ['postinst', 'prerm', 'postrm'];
  t.strictSame(
    readdirSync(join(dir, 'control')).sort(),
    ['conffiles', 'control', 'md5sums', ...scripts].sort(),
  );
  for (const script of scripts) await execa('sh', ['-n', join(dir, 'control', script)]);
  await execa('bash', ['-n', join(tree, 'usr/share/bash-completion/completions/vmdiskctl')]);
  const { stdout: listing } = await execa('dpkg-deb', ['--contents', deb]);
  t.notMatch(
    listing,
    /\.node$|node_modules|^[-d]\S+ (?!root\/root)/m,
    'nothing compiled, nothing of somebody’s',
  );
  t.notMatch(listing, /^-.......w/m, 'nothing that all may write');
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>;
  };
  const licences = read('usr/share/doc/vmdiskd/third-party-licences');
  for (const [name, version] of Object.entries(dependencies)) {
    t.ok(licences.includes(`\n${name} ${version}: `), `the licence of ${name}`);
  }
});

t.test('its programs run, without a checkout', async (t) => {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  for (const name of ['vmdiskd', 'vmdiskd-gateway', 'vmdiskctl']) {
    const file = join(tree, `usr/lib/vmdiskd/${name}.mjs`);
    t.equal(statSync(file).mode & 0o777, 0o755);
    t.match(readFileSync(file, 'utf8').slice(0, 100), /^#!\/usr\/bin\/node\nimport /);
    const { stdout } = await execa(process.execPath, [file, '--version'], { cwd: '/' });
    t.equal(stdout, version);
  }
  const host = await startHost(t);
  const program = (name: string) => join(tree, `usr/lib/vmdiskd/${name}.mjs`);
  const daemon = await host.spawn(process.execPath, [program('vmdiskd')], { env: { NODE_PATH: '/none' } });
  host.wrote('the daemon', daemon.output);
  const image = await host.createImage({ name: 'a.qcow2', format: 'qcow2', size: 1 << 20 });
  const ctl = (...args: string[]) =>
    host.must(process.execPath, [program('vmdiskctl'), '--retry', '60', ...args]);
  t.match(
    await ctl('prepare-backup-disk', '--export-id', 'e', '--path', image, '--format', 'qcow2'),
    /^uri: +nbd/m,
  );
  t.match(await ctl('list-disks', '--vm-id', 'none').catch(String), /NoSuchVM/, 'libvirt is reached');
  t.match(await ctl('teardown-backup-disk', '--export-id', 'e'), /exportId/);
  await daemon.kill();
  t.equal((await daemon.exited).exitCode, 0);
});

t.test('the configuration file sets nothing, and says everything', async (t) => {
  const text = read('etc/vmdiskd/vmdiskd.toml');
  t.strictSame(configFrom(parse(text)), configFrom({}));
  const inForce = text.replace(/^#(?=[A-Za-z]+ = )/gm, '');
  t.strictSame(configFrom({ ...parse(inForce), hostId: 'x' }), configFrom({ hostId: 'x' }));
  t.ok(inForce.includes('deadlineSeconds'));
});

t.test('the man pages', async (t) => {
  for (const page of [
    'man1/vmdiskctl.1',
    'man5/vmdiskd.toml.5',
    'man8/vmdiskd.8',
    'man8/vmdiskd-gateway.8',
  ]) {
    const { stdout: source } = await execa('zcat', [join(tree, `usr/share/man/${page}.gz`)]);
    t.match(source, /^\.TH \S+ \d /, page);
    t.notMatch(source, /^[.'](?!TH|SH|SS|TP|BR|B|PP|nf|fi|br)/m, `${page}: no request by accident`);
    t.notMatch(source, /[^\n\t -~]/, `${page}: what every troff reads`);
  }
});

t.test('the units, with what the generator makes of configurations', async (t) => {
  const network = {
    rpc: { tls: ['192.0.2.1:16520'], https: ['[2001:db8::1]:443'], wss: ['[2001:db8::1]:443'] },
    tls: { cert: '/c', key: '/k', clientCa: '/a' },
    gateway: { listen: ['0.0.0.0:10809'] },
    metrics: { listen: '/run/vmdiskd/metrics.sock' },
  };
  const homes = {
    images: { allowedRoots: ['/home/vms', '/srv/with space', '/dev/vg'] },
    hotplug: { allowedHosts: ['b'] },
  };
  for (const [name, config] of Object.entries({ plain: {}, network, homes })) {
    const units = join(dir, `units-${name}`);
    mkdirSync(units);
    await execa('cp', ['-r', `${join(tree, 'usr/lib/systemd/system')}/.`, units]);
    for (const [path, text] of unitFiles(configFrom(config))) {
      mkdirSync(join(units, path, '..'), { recursive: true });
      if (!text.startsWith('/')) writeFileSync(join(units, path), text);
    }
    // Only where the programs lie is another place.
    await execa('sed', [
      '-i',
      `s#=/usr/sbin/#=${tree}/usr/sbin/#`,
      ...services.map((unit) => join(units, unit)),
    ]);
    const files = readdirSync(units).filter((file) => /\.(service|socket|slice)$/.test(file));
    const verified = await execa(
      'systemd-analyze',
      ['verify', '--man=no', ...files.map((file) => join(units, file))],
      {
        reject: false,
      },
    );
    t.strictSame([verified.exitCode, verified.stderr], [0, ''], name);
    if (name === 'plain') {
      t.ok((await exposure(join(units, 'vmdiskd.service'))) <= DAEMON_EXPOSURE);
      t.ok((await exposure(join(units, 'vmdiskd-gateway.service'))) <= GATEWAY_EXPOSURE);
      t.strictSame(
        files.filter((file) => file.endsWith('.socket')),
        ['vmdiskd.socket'],
      );
    }
  }
  const made = unitFiles(configFrom(network));
  t.match(
    made.get('vmdiskd-network.socket'),
    /ListenStream=192\.0\.2\.1:16520\nListenStream=\[2001:db8::1\]:443\n/,
  );
  t.match(
    made.get('vmdiskd.service.d/10-configuration.conf'),
    /Requires=vmdiskd\.socket vmdiskd-network\.socket vmdiskd-metrics\.socket\n/,
  );
  t.match(made.get('vmdiskd.service.d/10-configuration.conf'), /^PrivateNetwork=yes$/m);
  t.match(made.get('vmdiskd.service.d/10-configuration.conf'), /^Wants=vmdiskd-gateway\.service$/m);
  t.ok(made.has('multi-user.target.wants/vmdiskd-gateway.service'));
  const open = unitFiles(configFrom(homes)).get('vmdiskd.service.d/10-configuration.conf');
  t.match(open, /^ReadWritePaths=-\/srv\/with\\x20space$/m);
  t.match(open, /^ProtectHome=no$/m);
  t.match(open, /^PrivateDevices=no\nDevicePolicy=closed\nDeviceAllow=block-\* r$/m);
  t.notMatch(open, /^PrivateNetwork/m, 'it tries the gateways of others');
  const named = configFrom({ gateway: { listen: ['gw.example:10809'] } });
  t.throws(() => unitFiles(named), /"gw\.example:10809" is a name/);
});

/** The figure of systemd-analyze(1) security, from 0 to 10. */
async function exposure(unit: string): Promise<number> {
  const { stdout } = await execa('systemd-analyze', ['security', '--offline=yes', '--no-pager', unit]);
  return Number(/Overall exposure level for \S+: ([\d.]+)/.exec(stdout)?.[1]);
}

t.test('the sandbox of an export', async (t) => {
  const unit = join(dir, 'vmdiskd-export-x.service');
  const files = [
    { path: '/images/a.qcow2', id: '1:1', write: false },
    { path: '/dev/vg/lv', id: '1:2', write: false, device: true },
  ];
  const confinement = { by: 'units' as const, uid: 998, gid: 998, root: '/run/vmdiskd/root' };
  const properties = confinedProperties({ confinement, files, directory: '/run/vmdiskd/exports/x' });
  t.ok(properties.includes('DynamicUser=yes'));
  t.ok(properties.includes('BindReadOnlyPaths=/images/a.qcow2:/images/0:norbind'));
  t.ok(properties.includes('DeviceAllow=/dev/vg/lv r'));
  t.ok(properties.includes('CapabilityBoundingSet=CAP_DAC_READ_SEARCH'));
  const text = ['[Service]', 'ExecStart=/bin/true', ...serverProperties, ...properties];
  writeFileSync(unit, text.join('\n'));
  const { stderr } = await execa('systemd-analyze', ['verify', '--man=no', unit]);
  t.equal(stderr, '');
  t.ok((await exposure(unit)) <= EXPORT_EXPOSURE);
});

t.test('accounts and directories are made', async (t) => {
  const empty = join(dir, 'empty');
  mkdirSync(join(empty, 'etc'), { recursive: true });
  await execa('systemd-sysusers', [`--root=${empty}`, join(tree, 'usr/lib/sysusers.d/vmdiskd.conf')]);
  const accounts = readFileSync(join(empty, 'etc/passwd'), 'utf8');
  t.match(accounts, /^vmdiskd-nbd:.*:\/usr\/sbin\/nologin$/m);
  t.match(accounts, /^vmdiskd-gateway:/m);
  t.match(readFileSync(join(empty, 'etc/group'), 'utf8'), /^vmdiskd:/m);
  await execa('systemd-tmpfiles', [
    '--create',
    `--root=${empty}`,
    join(tree, 'usr/lib/tmpfiles.d/vmdiskd.conf'),
  ]);
  t.equal(statSync(join(empty, 'var/lib/vmdiskd')).mode & 0o777, 0o711);
  t.equal(statSync(join(empty, 'run/vmdiskd/gateway')).mode & 0o777, 0o700);
});

t.test("the snippet for QEMU's profile", async (t) => {
  const profile = join(dir, 'profile');
  const snippet = join(tree, 'etc/apparmor.d/abstractions/libvirt-qemu.d/vmdiskd');
  writeFileSync(profile, `profile libvirt-test {\n  include "${snippet}"\n}\n`);
  await execa('apparmor_parser', ['--skip-kernel-load', '--skip-cache', profile]);
  writeFileSync(profile, `profile libvirt-test {\n  include "${snippet}"\n  nonsense\n}\n`);
  await t.rejects(
    execa('apparmor_parser', ['--skip-kernel-load', '--skip-cache', profile]),
    'it would say so',
  );
});

t.test('the generator fails where the configuration does, and says why', async (t) => {
  const file = join(dir, 'bad.toml');
  writeFileSync(file, '[rpc]\nsokket = "/x"\n');
  const ran = await execa(
    process.execPath,
    [join(tree, 'usr/lib/vmdiskd/vmdiskd.mjs'), '--config', file, '--write-units', dir],
    {
      reject: false,
    },
  );
  t.match(ran, { exitCode: 2, stderr: /sokket is not an option/ });
});
