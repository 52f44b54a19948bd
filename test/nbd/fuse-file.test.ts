/** Real mounts by qemu-storage-daemon and nbdfuse over a real qemu-nbd, and readers that nobody can end. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { execa } from 'execa';
import t, { type Test } from 'tap';
import { mountsAt } from '../../agent/host/mounts.js';
import type { ServerProcess } from '../../agent/host/process.js';
import { childProcesses } from '../../agent/host/process-child.js';
import { poll, within } from '../../agent/host/process-wait.js';
import { type FuseFile, fuseServesAt, startFuseFile, stopFuseFile } from '../../agent/nbd/fuse-file.js';
import type { FuseFileOptions } from '../../agent/nbd/fuse-server.js';
import { type QemuNbdServer, startQemuNbd, stopQemuNbd } from '../../agent/nbd/qemu-nbd.js';

const wait = { timeoutMs: 20_000 };
const stopping = { timeoutMs: 20_000, graceMs: 10_000 };
/** For servers that will not listen. */
const hurry = { timeoutMs: 20_000, graceMs: 300 };
const mebi = 2 ** 20;
const nobody = { uid: 65534, gid: 65534 };
const servers: QemuNbdServer[] = [];
const files = new Map<string, string>();
let folder = '';
let count = 0;

t.before(async () => {
  folder = await mkdtemp('/var/tmp/vmdiskd-fuse-');
  await chmod(folder, 0o711);
});
t.after(async () => {
  for (const { process } of servers) signal(process, 'SIGCONT');
  for (const [name, file] of files) await stopFuseFile(childProcesses, { name, file }, hurry);
  for (const server of servers) await stopQemuNbd(childProcesses, server, stopping);
  await rm(folder, { recursive: true });
});

/** A qemu-nbd of a raw image of random bytes. */
async function serve(size = mebi): Promise<QemuNbdServer & { image: string }> {
  count += 1;
  const image = await randomFile(`image${count}.raw`, size);
  const server = await serveAgain({
    image,
    socket: join(folder, `nbd${count}.sock`),
    exportName: `e/${count} ü`,
  });
  return { ...server, image };
}

async function randomFile(name: string, size: number): Promise<string> {
  const path = join(folder, name);
  await execa('dd', ['if=/dev/urandom', `of=${path}`, 'iflag=count_bytes', `count=${size}`, 'bs=1M']);
  return path;
}

async function serveAgain(of: { image: string; socket: string; exportName: string }): Promise<QemuNbdServer> {
  count += 1;
  const server = await startQemuNbd(
    childProcesses,
    {
      name: `vmdiskd-test-fuse-nbd-${process.pid}-${count}`,
      image: { driver: 'raw', file: { driver: 'file', filename: of.image } },
      readOnly: false,
      exportName: of.exportName,
      socket: of.socket,
      stderrFile: join(folder, `nbd${count}.err`),
    },
    wait,
  );
  servers.push(server);
  return server;
}

function options(
  { socket, exportName }: { socket: string; exportName: string },
  extra: Partial<FuseFileOptions> = {},
): FuseFileOptions {
  count += 1;
  const name = `vmdiskd-test-fuse-${process.pid}-${count}`;
  // A blank and a backslash, which the kernel's list of mounts escapes.
  const file = join(folder, `disk ${count}\\.raw`);
  files.set(name, file);
  return {
    name,
    socket,
    exportName,
    file,
    writable: false,
    stderrFile: join(folder, `${count}.err`),
    ...extra,
  };
}

const show = (server: QemuNbdServer, extra: Partial<FuseFileOptions> = {}): Promise<FuseFile> =>
  startFuseFile(childProcesses, options(server, extra), wait);

function signal({ identity }: ServerProcess, what: NodeJS.Signals): void {
  try {
    process.kill(identity.pid, what);
  } catch {
    // gone
  }
}

/** What is left of a file whose server has been stopped, or did not start. */
async function left(file: string): Promise<string[]> {
  const mounts = await mountsAt(file);
  const names = (await readdir(folder)).filter((name) => join(folder, name) === file);
  const name = [...files].find(([, other]) => other === file)?.[0] ?? '';
  const process = await childProcesses.find(name);
  return [...mounts, ...names, ...(process ? [process.name] : [])];
}

/** By an account without privileges, since root may do what it likes. */
const asNobody = (command: string, ...args: string[]) =>
  execa('setpriv', ['--reuid=65534', '--regid=65534', '--clear-groups', command, ...args], { reject: false });

const run = (command: string, ...args: string[]) => execa(command, args, { reject: false });
const sum = async (file: string) => (await execa('sha256sum', ['--', file])).stdout.replace(/^\\|\s.*/g, '');
const equal = async (a: string, b: string) => (await run('cmp', a, b)).exitCode === 0;

/** A reader that waits for an answer: nothing here may touch the file, or it would wait as well. */
async function hangingReader(t: Test, { file, process }: FuseFile): Promise<ChildProcess> {
  // It would keep this test from ending.
  t.teardown(() => stopFuseFile(childProcesses, { name: process.name, file }, hurry));
  const reader = spawn('dd', [`if=${file}`, 'of=/dev/null', 'iflag=direct', 'bs=64k'], { stdio: 'ignore' });
  await within('the reader', wait, (over) =>
    poll(over, async () =>
      /fuse|request_wait/.test(await readFile(`/proc/${reader.pid}/wchan`, 'latin1')) ? true : undefined,
    ),
  );
  return reader;
}

t.test('a file to read: all bytes, root alone, and no way to write', async (t) => {
  // Not a multiple of 512: QEMU's servers and clients round up and show zeroes.
  const server = await serve(5 * mebi + 3);
  const shown = await show(server);
  const { file } = shown;
  t.equal(shown.size, 5 * mebi + 512);
  const stats = await stat(file);
  t.match(
    { mode: stats.mode & 0o7777, uid: stats.uid, size: stats.size },
    { mode: 0o400, uid: 0, size: shown.size },
  );
  t.ok(stats.blocks > 0, 'tar takes a file without blocks for one hole');
  t.ok((await run('cmp', '--bytes', String(5 * mebi + 3), file, server.image)).exitCode === 0);
  t.match((await asNobody('cat', file)).stderr, /Permission denied/);
  t.match(
    (await run('dd', 'if=/dev/zero', `of=${file}`, 'conv=notrunc', 'count=1')).stderr,
    /Read-only file system/,
  );
  t.match((await run('chmod', '600', file)).stderr, /Read-only file system/);
  t.ok(await fuseServesAt(shown.process, file));
  t.notOk(await fuseServesAt(shown.process, `${file}x`));
  t.notOk(await fuseServesAt(server.process, file));
  t.same(await childProcesses.find(shown.process.name), shown.process);
  await t.rejects(startFuseFile(childProcesses, options(server, { file }), wait), { name: 'AlreadyExists' });
  await stopFuseFile(childProcesses, shown, stopping);
  t.strictSame(await left(file), []);
  await stopFuseFile(childProcesses, shown, stopping);
});

t.test('a file for an account: it may read, others may not', async (t) => {
  const server = await serve();
  const { file, process } = await show(server, { owner: nobody });
  t.equal((await asNobody('cmp', file, file)).exitCode, 0);
  t.equal((await asNobody('sha256sum', '--', file)).stdout.replace(/^\\|\s.*/g, ''), await sum(server.image));
  t.ok((await asNobody('dd', 'if=/dev/zero', `of=${file}`, 'conv=notrunc', 'count=1')).failed);
  t.match((await run('setpriv', '--reuid=65533', '--clear-groups', 'cat', file)).stderr, /Permission denied/);
  await stopFuseFile(childProcesses, { name: process.name, file }, stopping);
  t.strictSame(await left(file), []);
});

t.test('a file to write to: what is written arrives, in whatever way', async (t) => {
  const server = await serve(64 * mebi);
  const other = await randomFile('other', 64 * mebi);
  const shown = await show(server, { writable: true, owner: nobody });
  const { file } = shown;
  t.equal(shown.size, 64 * mebi);
  t.equal((await stat(file)).mode & 0o7777, 0o600);
  t.match((await run('setpriv', '--reuid=65533', '--clear-groups', 'cat', file)).stderr, /Permission denied/);
  t.equal(
    (await asNobody('dd', 'if=/dev/zero', `of=${file}`, 'bs=1M', 'count=64', 'conv=notrunc,fsync')).exitCode,
    0,
  );
  t.match((await run('cmp', '/dev/zero', server.image)).stderr, /EOF on .*image/);
  // Several requests at a time: by these two QEMU's own FUSE export loses data.
  await execa('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', '-t', 'none', other, file]);
  t.ok(await equal(other, server.image), 'asynchronous and direct');
  const mapped = `import mmap, os, sys
data = os.urandom(${64 * mebi})
fd = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, len(data)); m[:] = data; m.flush(); os.fsync(fd)
open(sys.argv[2], 'wb').write(data)`;
  await execa('python3', ['-c', mapped, file, join(folder, 'mapped')]);
  t.ok(await equal(join(folder, 'mapped'), server.image), 'by a shared mapping');
  t.ok((await run('truncate', '--size=1M', file)).failed, 'its size stays');
  t.ok(await fuseServesAt(shown.process, file));
  await stopFuseFile(childProcesses, shown, stopping);
  t.strictSame(await left(file), []);
  t.ok(await equal(join(folder, 'mapped'), server.image));
});

t.test('an empty disk is an empty file', async (t) => {
  const server = await serve(0);
  for (const writable of [false, true]) {
    const shown = await show(server, { writable });
    t.equal(shown.size, 0);
    t.equal((await execa('cat', [shown.file])).stdout, '');
    await stopFuseFile(childProcesses, shown, stopping);
    t.strictSame(await left(shown.file), []);
  }
});

t.test('the NBD server dies: readers are told at once; reading goes on with its successor', async (t) => {
  const server = await serve();
  const shown = await show(server);
  signal(server.process, 'SIGKILL');
  await childProcesses.waitForExit(server.process, wait);
  t.match(
    (await run('dd', `if=${shown.file}`, 'of=/dev/null', 'iflag=direct')).stderr,
    /Input\/output error/,
  );
  await serveAgain(server);
  await within('the connection', wait, (over) =>
    poll(over, async () => (await equal(shown.file, server.image)) || undefined),
  );
  await stopFuseFile(childProcesses, shown, stopping);

  const written = await show(server, { writable: true });
  for (const one of servers) signal(one.process, 'SIGKILL');
  t.ok((await run('dd', `if=${written.file}`, 'of=/dev/null', 'iflag=direct')).failed);
  t.ok((await run('dd', 'if=/dev/zero', `of=${written.file}`, 'conv=notrunc', 'count=1')).failed);
  await stopFuseFile(childProcesses, written, stopping);
  for (const { file } of [shown, written]) t.strictSame(await left(file), []);
});

for (const writable of [false, true]) {
  const what = writable ? 'to write to' : 'to read';

  t.test(`a file ${what}: its server is killed, and one has it open`, async (t) => {
    const shown = await show(await serve(), { writable });
    const reader = spawn('sh', ['-c', 'exec 3<"$0"; echo; read -r _; head -c 1 <&3', shown.file]);
    let said = '';
    reader.stderr.on('data', (data) => (said += data));
    await once(reader.stdout, 'data');
    signal(shown.process, 'SIGKILL');
    await childProcesses.waitForExit(shown.process, wait);
    t.equal((await mountsAt(shown.file)).length, 1);
    await t.rejects(stat(shown.file), { code: 'ENOTCONN' });
    await stopFuseFile(childProcesses, shown, stopping);
    t.strictSame(await left(shown.file), []);
    reader.stdin.end('\n');
    await once(reader, 'close');
    t.match(said, /Transport endpoint is not connected/);
  });

  t.test(`a file ${what}: stopped while one has it open`, async (t) => {
    const shown = await show(await serve(), { writable });
    const reader = spawn('sh', ['-c', 'exec 3<"$0"; echo; read -r _', shown.file]);
    await once(reader.stdout, 'data');
    await stopFuseFile(childProcesses, shown, stopping);
    t.strictSame(await left(shown.file), []);
    reader.stdin.end('\n');
    await once(reader, 'close');
  });

  t.test(`a file ${what}: the NBD server hangs, and so does a reader`, async (t) => {
    const server = await serve();
    const shown = await show(server, { writable });
    signal(server.process, 'SIGSTOP');
    const reader = await hangingReader(t, shown);
    const gone = once(reader, 'close');
    reader.kill('SIGKILL');
    const begun = Date.now();
    await stopFuseFile(childProcesses, { name: shown.process.name, file: shown.file }, hurry);
    t.ok(Date.now() - begun < 5000, 'it does not wait for what hangs');
    t.strictSame(await left(shown.file), []);
    await gone;
    signal(server.process, 'SIGCONT');
  });

  t.test(`a file ${what}: its own server hangs`, async (t) => {
    const shown = await show(await serve(), { writable });
    signal(shown.process, 'SIGSTOP');
    const reader = await hangingReader(t, shown);
    const gone = once(reader, 'close');
    await stopFuseFile(childProcesses, shown, hurry);
    t.strictSame(await left(shown.file), []);
    await gone;
  });

  t.test(
    `a file ${what} that cannot be made: why, in the words of its server, and nothing is left`,
    async (t) => {
      const server = await serve();
      const fails = async (extra: Partial<FuseFileOptions>, expected: { name: string; message: RegExp }) => {
        const failing = options(server, { writable, ...extra });
        await t.rejects(startFuseFile(childProcesses, failing, wait), expected);
        t.strictSame(await left(failing.file), []);
      };
      const program = writable ? 'nbdfuse' : 'qemu-storage-daemon';
      const no = new RegExp(`^${program} ended at its start: .*No such file or directory`);
      await fails({ socket: join(folder, 'none.sock') }, { name: 'ExportFailed', message: no });
      await fails({ exportName: 'none' }, { name: 'ExportFailed', message: /ended at its start: .*none/ });
      const taken = join(folder, `taken${writable}`);
      await writeFile(taken, 'of value');
      await t.rejects(startFuseFile(childProcesses, options(server, { writable, file: taken }), wait), {
        name: 'AlreadyExists',
      });
      t.equal(await readFile(taken, 'utf8'), 'of value');
      await t.rejects(startFuseFile(childProcesses, options(server, { writable, file: folder }), wait), {
        name: 'AlreadyExists',
      });
      for (const file of [taken, folder]) {
        for (const [name, path] of files) if (path === file) files.delete(name);
      }
    },
  );

  t.test(
    `a file ${what}: a start that takes too long, or is not wanted any more, leaves nothing`,
    async (t) => {
      // A server that accepts and says nothing.
      const mute = createServer((peer) => peer.on('error', () => {}).resume());
      const socket = join(folder, `mute${writable}.sock`);
      await new Promise<void>((resolve) => mute.listen(socket, resolve));
      t.teardown(() => mute.close());
      const slow = options({ socket, exportName: 'x' }, { writable });
      await t.rejects(startFuseFile(childProcesses, slow, { timeoutMs: 500 }), { name: 'Timeout' });
      t.strictSame(await left(slow.file), []);
      const unwanted = options({ socket, exportName: 'x' }, { writable });
      const leave = new AbortController();
      const start = startFuseFile(childProcesses, unwanted, { ...wait, signal: leave.signal });
      const failed = t.rejects(start, { message: 'caller left' });
      await within('the process', wait, (over) => poll(over, () => childProcesses.find(unwanted.name)));
      leave.abort(new Error('caller left'));
      await failed;
      t.strictSame(await left(unwanted.file), []);
    },
  );
}

t.test(
  'what an earlier start has left at its beginning is no hindrance; a stranger of the name is let alone',
  async (t) => {
    const server = await serve();
    const wanted = options(server);
    await writeFile(wanted.file, '');
    const shown = await startFuseFile(childProcesses, wanted, wait);
    t.ok(await equal(shown.file, server.image));
    const elsewhere = { name: shown.process.name, file: join(folder, 'elsewhere') };
    await stopFuseFile(childProcesses, elsewhere, stopping);
    t.ok(await childProcesses.isAlive(shown.process), 'another file of the same name');
    await stopFuseFile(childProcesses, shown, stopping);
    t.strictSame(await left(shown.file), []);
  },
);

t.test('in a mount namespace of its own it is refused: everybody else would see an empty file', async (t) => {
  const server = await serve();
  const wanted = options(server);
  const script = `
    import { childProcesses } from './dist/host/process-child.js';
    import { startFuseFile } from './dist/nbd/fuse-file.js';
    startFuseFile(childProcesses, JSON.parse(process.argv[1]), { timeoutMs: 20000 }).then(
      () => console.log('served'),
      ({ name, message }) => console.log(name, message),
    );`;
  const node = [process.execPath, '--input-type=module', '-e', script, JSON.stringify(wanted)];
  const root = new URL('../../', import.meta.url).pathname;
  const own = await execa('unshare', ['--mount', '--propagation', 'slave', '--', ...node], { cwd: root });
  t.match(own.stdout, /^ToolMissing .*PrivateMounts=no/);
  t.strictSame(await left(wanted.file), []);
  t.equal(
    (await execa(process.execPath, node.slice(1), { cwd: root })).stdout,
    'served',
    'the same in the host’s own',
  );
});
