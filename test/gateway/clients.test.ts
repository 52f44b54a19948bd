/** Real clients through the gateway: what they see is what the server itself shows. Needs root. */
import { join } from 'node:path';
import t from 'tap';
import { client, makeRig, psk, type Ran, type Rig, type RunningGateway } from './rig.js';

t.setTimeout(300_000);

const MiB = 1 << 20;
const SIZE = 32 * MiB;
let rig: Rig;
let gateway: RunningGateway;
let socket = '';

const must = async (...command: [string, ...string[]]): Promise<string> => {
  const ran = await client(...command);
  if (!ran.ok) throw new Error(`${command.join(' ')}: ${ran.stderr}`);
  return ran.stdout;
};

/** The same export in three ways: straight at its server, with its key, with a certificate. */
const straight = () => `nbd+unix:///vda?socket=${socket}`;
const withKey = () => `nbds://disk@127.0.0.1:${gateway.port}/disk?tls-psk-file=${rig.pskFile('disk').file}`;
const withCertificate = () =>
  `nbds://127.0.0.1:${gateway.port}/certified?tls-certificates=${rig.pki.client('appliance')}`;

/** How QEMU's own client is told the same. */
const credentials = {
  key: () => `tls-creds-psk,id=tls0,endpoint=client,dir=${rig.pskFile('disk').dir},username=disk`,
  certificate: () => `tls-creds-x509,id=tls0,endpoint=client,dir=${rig.pki.client('appliance')}`,
};

t.before(async () => {
  rig = await makeRig(t);
  gateway = await rig.gateway();
  const path = join(rig.dir, 'disk.qcow2');
  const io = (...commands: string[]) =>
    must('qemu-io', '-f', 'qcow2', ...commands.flatMap((command) => ['-c', command]), path);
  await must('qemu-img', 'create', '-q', '-f', 'qcow2', path, String(SIZE));
  await io('write -P 7 1M 5M', 'write -z 8M 1M');
  await must('qemu-img', 'bitmap', '--add', path, 'monday');
  await io('write -P 8 4M 128k', 'write -P 9 31M 1M');
  const file = { driver: 'file', filename: path } as const;
  // As with QEMU's own server of a backup, the name there is not the one on the network.
  socket = await rig.serve('vda', { driver: 'qcow2', file, backing: null }, ['monday']);
  const server = { socket, exportName: 'vda' };
  await rig.enter({ exportId: 'disk', access: psk('disk'), server });
  const clients = ['dns:appliance.example'];
  await rig.enter({ exportId: 'certified', access: { type: 'x509', clients }, server });
});

t.test('nbdinfo: size, flags, every metadata context, and the map of each', async (t) => {
  const told = async (uri: string) => {
    const { exports } = JSON.parse(await must('nbdinfo', '--json', uri));
    const { uri: _, 'export-name': name, ...rest } = exports[0];
    return { name, rest };
  };
  const truth = await told(straight());
  t.strictSame(truth.rest.contexts, ['base:allocation', 'qemu:allocation-depth', 'qemu:dirty-bitmap:monday']);
  const contexts: string[] = truth.rest.contexts;
  for (const [uri, name] of [
    [withKey(), 'disk'],
    [withCertificate(), 'certified'],
  ] as const) {
    const seen = await told(uri);
    t.equal(seen.name, name);
    t.strictSame(seen.rest, truth.rest);
    for (const context of contexts) {
      const map = await must('nbdinfo', '--json', `--map=${context}`, uri);
      t.equal(map, await must('nbdinfo', '--json', `--map=${context}`, straight()), `${name}, ${context}`);
    }
  }
});

t.test('nbdcopy with four connections', async (t) => {
  const sum = async (uri: string) =>
    (await must('sh', '-c', 'nbdcopy --connections=4 --threads=4 "$0" - | sha256sum', uri)).slice(0, 64);
  const truth = await sum(straight());
  t.equal(await sum(withKey()), truth);
  t.equal(await sum(withCertificate()), truth);
  const { exports } = await gateway.status();
  t.ok((exports.disk?.sent ?? 0) >= 6 * MiB, 'counted');
  t.equal(exports.disk?.clients, 0);
});

t.test('qemu-img convert and compare', async (t) => {
  for (const [exportId, object] of [
    ['disk', credentials.key()],
    ['certified', credentials.certificate()],
  ] as const) {
    const copy = join(rig.dir, `${exportId}.raw`);
    const opts = `driver=nbd,host=127.0.0.1,port=${gateway.port},export=${exportId},tls-creds=tls0`;
    await must('qemu-img', 'convert', '--object', object, '--image-opts', opts, '-O', 'raw', copy);
    const compared = await must('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', straight(), copy);
    t.match(compared, 'Images are identical.', exportId);
  }
});

t.test('nbdsh: the bytes, and names asked for in mid-negotiation', async (t) => {
  const { file } = rig.pskFile('disk');
  const script = [
    'h.set_opt_mode(True)',
    'h.set_full_info(True)',
    'h.set_export_name("disk")',
    'h.set_tls(nbd.TLS_REQUIRE)',
    `h.set_tls_psk_file("${file}")`,
    'h.set_tls_username("disk")',
    'h.add_meta_context("qemu:dirty-bitmap:monday")',
    `h.connect_tcp("127.0.0.1", "${gateway.port}")`,
    'names = []',
    'h.opt_list(lambda name, description: names.append(name))',
    'print(names)',
    'h.opt_info()',
    'print(h.get_size(), h.get_canonical_export_name())',
    'h.set_export_name("nobody")',
    'try: h.opt_info()\nexcept nbd.Error as error: print("refused")',
    'h.set_export_name("disk")',
    'h.opt_go()',
    'print(h.can_meta_context("qemu:dirty-bitmap:monday"))',
    'print(h.pread(4, 4 << 20).hex(), h.pread(4, 2 << 20).hex())',
  ];
  const ran: Ran = await client('nbdsh', ...script.flatMap((line) => ['-c', line]));
  t.equal(ran.stderr, '');
  t.strictSame(ran.stdout.split('\n'), [`['disk']`, `${SIZE} disk`, 'refused', 'True', '08080808 07070707']);
});

t.test('TLS 1.2, for clients that need it', async (t) => {
  for (const [exportId, object] of [
    ['disk', credentials.key()],
    ['certified', credentials.certificate()],
  ] as const) {
    const opts = `driver=nbd,host=127.0.0.1,port=${gateway.port},export=${exportId},tls-creds=tls0`;
    const old = `${object},priority=NORMAL:-VERS-TLS1.3`;
    const info = JSON.parse(
      await must('qemu-img', 'info', '--output=json', '--object', old, '--image-opts', opts),
    );
    t.equal(info['virtual-size'], SIZE, exportId);
  }
});

t.test('keys need no certificates to be set up', async (t) => {
  const own = await makeRig(t);
  const bare = await own.gateway({}, {});
  t.match(await bare.status(), { x509: false });
  await own.enter({ exportId: 'disk', access: psk('disk'), server: { socket, exportName: 'vda' } });
  const { file, dir } = own.pskFile('disk');
  const uri = `nbds://disk@127.0.0.1:${bare.port}/disk?tls-psk-file=${file}`;
  t.equal(await must('nbdinfo', '--size', uri), String(SIZE));
  const opts = `driver=nbd,host=127.0.0.1,port=${bare.port},export=disk,tls-creds=tls0`;
  const old = `tls-creds-psk,id=tls0,endpoint=client,dir=${dir},username=disk,priority=NORMAL:-VERS-TLS1.3`;
  await must('qemu-img', 'info', '--object', old, '--image-opts', opts);
  const nobody = own.pskFile('nobody').file;
  t.notOk((await client('nbdinfo', `nbds://nobody@127.0.0.1:${bare.port}/disk?tls-psk-file=${nobody}`)).ok);
  t.match(own.refusals(), [{ reason: /handshake failed.*"nobody", which has no key here/ }]);
});

t.test('the list is of what the credential may see', async (t) => {
  const uri = `nbds://127.0.0.1:${gateway.port}/?tls-certificates=${rig.pki.client('appliance')}`;
  const { exports } = JSON.parse(await must('nbdinfo', '--json', '--list', uri));
  t.match(exports, [{ 'export-name': 'certified', 'export-size': SIZE }]);
  t.equal(exports.length, 1, 'what needs a key is not shown for a certificate');
  const other = `nbds://127.0.0.1:${gateway.port}/?tls-certificates=${rig.pki.client('other')}`;
  t.strictSame(JSON.parse(await must('nbdinfo', '--json', '--list', other)).exports, []);
});

t.test('latency at queue depth 1, told and not judged', async (t) => {
  const script = (uri: string) => [
    'import time',
    'h.set_uri_allow_local_file(True)',
    `h.connect_uri("${uri}")`,
    'def each(work):\n  start = time.monotonic()\n  for n in range(200): work(n)\n  return (time.monotonic() - start) * 5',
    'print("%.2f" % each(lambda n: h.pread(4096, n * 4096)))',
  ];
  for (const [name, uri] of [
    ['straight', straight()],
    ['psk', withKey()],
    ['x509', withCertificate()],
  ] as const) {
    const ms = await must('nbdsh', ...script(uri).flatMap((line) => ['-c', line]));
    t.ok(Number(ms) > 0);
    t.comment(`4 KiB at queue depth 1, ${name}: ${ms.trim()} ms`);
  }
});
