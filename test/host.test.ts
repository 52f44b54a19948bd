// The private host itself: what it promises to every other test. Needs root.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { HOSTS_PARENT, sweepStaleDirectories } from './host/directories.js';
import { startHost } from './host/host.js';
import { poll } from './host/poll.js';

t.setTimeout(600_000);

/** The machine's own directories, which a host must not change: names and times of what is in them. */
function machine(): string {
  const roots = ['/run/libvirt', '/run/vmdiskd', '/var/lib/libvirt', '/var/lib/vmdiskd', '/etc/libvirt'];
  return roots
    .flatMap((root) => [
      root,
      ...(existsSync(root) ? readdirSync(root, { recursive: true, encoding: 'utf8' }) : []).map(
        (name) => `${root}/${name}`,
      ),
    ])
    .map((path) => (existsSync(path) ? `${path} ${statSync(path).ctimeMs}` : `${path} absent`))
    .join('\n');
}

t.test('a host is a machine of its own, and leaves the real one as it was', async (t) => {
  const before = machine();
  const host = await startHost(t);
  t.ok(host.libvirtSocket.length <= 107, 'its libvirt socket fits in a UNIX address');
  t.ok(statSync(host.libvirtSocket).isSocket(), 'and is seen from outside');
  t.strictSame(await host.domains(), [], 'no domains but its own');
  t.equal((await host.run('ip', ['-brief', 'link'])).stdout.split('\n').length, 1, 'no network but loopback');
  t.notOk(existsSync(host.path('/run/dbus')), 'nothing of the machine in /run');
  t.match(await host.must('cat', ['/proc/1/comm']), /cat|bash/, '/proc is its own');
  const file = await host.createImage({ name: 'a.qcow2', format: 'qcow2', size: 1 << 20 });
  t.ok(existsSync(host.path(file)), 'its images are seen from outside');
  await host.must('sh', [
    '-c',
    'mkdir -p /var/lib/vmdiskd/records /run/vmdiskd && echo x >/etc/libvirt/made',
  ]);

  t.equal((await host.run('sh', ['-c', 'cat; exit 3'], { input: 'hello' })).stdout, 'hello');
  t.match(await host.run('sh', ['-c', 'exit 3']), { exitCode: 3, timedOut: false });
  t.match(await host.must('id', [], { user: 'libvirt-qemu' }), /\(libvirt-qemu\)/);
  t.match(await host.run('sleep', ['600'], { timeoutMs: 200 }), { timedOut: true });
  const long = await host.spawn('sh', [
    '-c',
    'trap "echo bye; exit 4" TERM; echo on; while :; do sleep 0.05; done',
  ]);
  await poll('its first word', 10_000, () => long.output() === 'on\n');
  t.ok((await host.processes()).some((process) => process.pid === long.pid));
  await long.kill();
  t.match(await long.exited, { exitCode: 4, stdout: 'on\nbye' });
  t.equal(await long.kill(), false, 'what is gone cannot be killed');
  await host.run('sh', ['-c', '(sleep 0.1 &)']);
  const daemons = async (): Promise<string[]> => (await host.processes()).map((process) => process.comm);
  await poll('orphans to be reaped', 10_000, async () => (await daemons()).join() === 'libvirtd');

  t.strictSame(await host.leftovers(), []);
  const nbd = ['--fork', '--socket=/run/vmdiskd/exports/nbd.sock', '-f', 'qcow2', file];
  await host.must('sh', ['-c', 'mkdir /run/vmdiskd/exports && exec qemu-nbd "$@"', 'sh', ...nbd]);
  const left = (await host.leftovers()).join('\n');
  t.match(left, /qemu-nbd/);
  t.match(left, /nbd\.sock/);

  await host.reboot();
  t.strictSame(await host.leftovers(), [], 'a reboot ends processes and empties /run');
  t.ok(existsSync(host.path('/var/lib/vmdiskd/records')), 'and keeps what is on disk');

  await host.killLibvirtd('SIGKILL');
  await poll('it and what it was running to be gone', 30_000, async () => (await daemons()).length === 0);
  await host.startLibvirtd();
  t.ok((await daemons()).includes('libvirtd'));

  await host.stop();
  t.notOk(existsSync(host.dir));
  t.equal(machine(), before, 'the machine’s own directories are as they were');
});

t.test('guests: both machine types, both buses, hot-plug, the agent, a power cycle', async (t) => {
  const host = await startHost(t);
  const MiB = 1 << 20;
  const [one, two, spare] = await Promise.all(
    ['one', 'two', 'spare'].map((name) =>
      host.createImage({ name: `${name}.qcow2`, format: 'qcow2', size: 16 * MiB }),
    ),
  );
  if (one === undefined || two === undefined || spare === undefined) throw new Error('unreachable');
  const [q35, pc] = await Promise.all([
    host.startGuest({
      name: 'q35',
      agent: true,
      scsiController: true,
      disks: [{ target: 'vda', path: one, format: 'qcow2', serial: 'first' }],
    }),
    host.startGuest({
      name: 'pc',
      machine: 'pc',
      define: false,
      disks: [{ target: 'sda', bus: 'scsi', path: two, format: 'qcow2', serial: 'second' }],
    }),
  ]);
  t.equal(await q35.sh('disk-by-serial first'), '/dev/vda');
  t.equal(await pc.sh('disk-by-serial second'), '/dev/sda');
  t.equal(await q35.sh('readlink -f /dev/disk/by-id/virtio-first'), '/dev/vda', 'udev’s own names');
  t.equal(await pc.sh('readlink -f /dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_second'), '/dev/sda');

  const change =
    'write-random $d 1048576 262144 seed && zero-range $d 1048576 65536 && discard-range $d 1179648 65536';
  await q35.sh(`d=/dev/vda; ${change}`);
  await pc.sh(`d=/dev/sda; ${change}`);
  t.equal(await q35.sha256('/dev/vda'), await pc.sha256('/dev/sda'), 'the same seed writes the same bytes');
  const failed = await q35.try('echo out; echo err >&2; exit 7');
  t.strictSame(failed, { stdout: 'out\n', stderr: 'err\n', exitCode: 7 });
  await t.rejects(q35.sh('echo nothing here >&2; false'), /nothing here/);
  await t.rejects(q35.sh('sleep 5', { timeoutMs: 200 }), /did not answer/);
  t.equal((await q35.sh('yes | head -c 2000000')).length, 1_999_999, 'long output arrives whole');

  for (const [bus, target, name] of [
    ['virtio', 'vdb', 'virtio-plugged'],
    ['scsi', 'sda', 'scsi-0QEMU_QEMU_HARDDISK_plugged'],
  ]) {
    await host.virsh(
      ...['attach-disk', 'q35', spare, `${target}`, '--live', '--targetbus', `${bus}`],
      ...['--serial', 'plugged', '--driver', 'qemu', '--subdriver', 'qcow2'],
    );
    t.equal(await q35.sh('disk-by-serial plugged'), `/dev/${target}`);
    await q35.sh(`udevadm settle; test -e /dev/disk/by-id/${name}`);
    await host.virsh('detach-disk', 'q35', `${target}`, '--live');
    await poll('the guest to let go', 60_000, async () => !(await q35.xml()).includes('plugged'));
  }

  await q35.sh('mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt');
  const agent = (command: string): Promise<string> =>
    host.virsh('qemu-agent-command', 'q35', `{"execute":"${command}"}`);
  t.match(await agent('guest-fsfreeze-freeze'), /"return":1/);
  t.match(await agent('guest-fsfreeze-thaw'), /"return":1/);
  await q35.sh('echo kept >/mnt/file');
  await q35.shutdown();
  await q35.start();
  t.equal(await q35.sh('mount /dev/vda /mnt && cat /mnt/file'), 'kept');
  await pc.destroy();
  await t.rejects(pc.sh('true'), /gone/);
  t.strictSame(await host.domains(), ['q35'], 'a transient guest is forgotten');
});

t.test('kill -9 of a test leaves nothing', async (t) => {
  const script = fileURLToPath(new URL('host/left-alone.ts', import.meta.url));
  const child = spawn(process.execPath, ['--import=tsx', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  const { dir, namespace } = await told(child);
  const inNamespace = (): string[] => readdirSync('/proc').filter((pid) => pidNamespace(pid) === namespace);
  t.ok(inNamespace().length >= 3, 'pid 1, libvirtd and a stubborn process run');
  t.strictSame(sweepStaleDirectories(), [], 'the directory of a living test is not swept');
  child.kill('SIGKILL');
  await once(child, 'exit');
  await poll('everything in it to be gone', 30_000, () => inNamespace().length === 0);
  t.notMatch(readFileSync('/proc/mounts', 'utf8'), dir, 'no mount is left');
  t.ok(existsSync(dir), 'plain files are all that is left');
  const host = await startHost(t, { libvirt: 'none' });
  t.notOk(existsSync(dir), 'and the next host sweeps them');
  t.ok(existsSync(host.dir));
  t.equal(host.dir.startsWith(`${HOSTS_PARENT}/`), true);
});

function pidNamespace(pid: string): number | undefined {
  try {
    return statSync(`/proc/${pid}/ns/pid`).ino;
  } catch {
    return undefined;
  }
}

async function told(child: ChildProcess): Promise<{ dir: string; namespace: number }> {
  if (child.stdout === null) throw new Error('unreachable');
  for await (const line of createInterface({ input: child.stdout })) return JSON.parse(line);
  throw new Error('The child ended without a word');
}
