/** What a program that has been taken over could reach from its view: the files that it is for, and nothing else. Needs root. */
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { confinedCommand } from '../../agent/host/confine.js';

const account = { uid: 65534, gid: 65534 };
const dir = mkdtempSync('/var/tmp/vmd-conf-');
const root = join(dir, 'root');
t.before(() => mkdirSync(root));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));

/** A file that nobody but its owner may open. */
function ownedBy(uid: number, name: string): { path: string; id: string } {
  const path = join(dir, name);
  writeFileSync(path, `content of ${name}`);
  chownSync(path, uid, uid);
  chmodSync(path, 0o600);
  const { dev, ino } = statSync(path, { bigint: true });
  return { path, id: `${dev}:${ino}` };
}

/** Tries one thing after another in python, in the view or (as a control) outside; what each came to, by its name. */
function tried(
  write: boolean | null,
  attempts: Record<string, string>,
  ...args: string[]
): Record<string, string> {
  const files = [ownedBy(0, 'roots'), ownedBy(64_055, 'qemus')];
  const program = '/usr/bin/python3';
  const script = [
    'import ctypes, errno, os, socket, sys',
    'libc = ctypes.CDLL(None, use_errno=True)',
    HANDLES,
    ...Object.entries(attempts).flatMap(([name, work]) => [
      'try:',
      `    print(${JSON.stringify(name)}, (lambda: ${work})(), sep="=")`,
      'except OSError as error:',
      `    print(${JSON.stringify(name)}, errno.errorcode[error.errno], sep="=")`,
    ]),
  ].join('\n');
  const python = ['-I', '-S', '-c', script, ...args];
  const view = {
    confinement: { by: 'namespaces' as const, ...account, root },
    files: files.map((file) => ({ ...file, write: write ?? false })),
  };
  const command = write === null ? { program, args: python } : confinedCommand(view, program, python);
  // A mount of the host's own below its libraries, which only this test sees.
  const host = ['--mount', '/bin/sh', '-c', 'mount -t tmpfs t /usr/lib/apt && exec "$0" "$@"'];
  const { stdout, stderr } = spawnSync('unshare', [...host, command.program, ...command.args], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  if (stderr !== '') throw new Error(stderr);
  return Object.fromEntries(
    stdout
      .trim()
      .split('\n')
      .map((line) => line.split(/=(.*)/s).slice(0, 2)),
  );
}

/** open_by_handle_at(2): a handle is its length, its type and its bytes. */
const HANDLES = `
def handle_of(path):
    handle, mount = ctypes.create_string_buffer(bytes([128, 0, 0, 0]) + bytes(132), 136), ctypes.c_int()
    if libc.name_to_handle_at(-100, path.encode(), handle, ctypes.byref(mount), 0) != 0:
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    return handle.raw.hex()
def by_handle(path, handle):
    found = libc.open_by_handle_at(os.open(path, os.O_RDONLY), bytes.fromhex(handle), os.O_RDONLY)
    if found < 0:
        raise OSError(ctypes.get_errno(), "open_by_handle_at")
    return os.read(found, 64)
def read(path):
    return os.read(os.open(path, os.O_RDONLY), 64)
def write(path):
    return os.write(os.open(path, os.O_WRONLY), b"C")
`;

const WRITES = {
  library: 'write("/usr/lib/os-release")',
  mounted: 'os.open("/usr/lib/apt/new", os.O_WRONLY | os.O_CREAT)',
  setpriv: 'write("/usr/bin/setpriv")',
  program: 'write("/usr/bin/python3")',
  new: 'os.open("/new", os.O_WRONLY | os.O_CREAT)',
};
const READS = { roots: 'read("/images/0")', qemus: 'read("/images/1")' };
const CONTENTS = { roots: "b'content of roots'", qemus: "b'content of qemus'" };

t.test('it reads its files, whoever owns them, and writes to nothing', async (t) => {
  t.strictSame(tried(false, { ...READS, ...WRITES, image: 'write("/images/0")' }), {
    ...CONTENTS,
    ...{ library: 'EACCES', setpriv: 'EACCES', program: 'EACCES', image: 'EACCES' },
    ...{ mounted: 'EROFS', new: 'EROFS' },
  });
});

t.test('where it is to write, to its files alone', async (t) => {
  t.strictSame(
    tried(true, { ...READS, ...WRITES, image: 'write("/images/0")', other: 'write("/images/1")' }),
    {
      ...CONTENTS,
      ...{ library: 'EROFS', mounted: 'EROFS', setpriv: 'EROFS', new: 'EROFS', image: '1', other: '1' },
      program: 'ETXTBSY', // it runs
    },
  );
});

t.test('no other file of the file system, though it were known by its handle', async (t) => {
  const secret = ownedBy(0, 'secret').path;
  const { handle = '' } = tried(null, { handle: `handle_of("${secret}")` });
  const byHandle = (path: string) => ({ secret: `by_handle("${path}", sys.argv[1])` });
  t.match(tried(null, byHandle(join(dir, 'roots')), handle), { secret: 'content of secret' }, 'root can');
  t.strictSame(tried(false, byHandle('/images/0'), handle), { secret: 'EPERM' });
  t.strictSame(tried(true, byHandle('/images/0'), handle), { secret: 'EPERM' });
});

t.test('nor a way out, a network, or anybody else', async (t) => {
  const connect = 'socket.create_connection(("127.0.0.1", 1), 5)';
  t.strictSame(
    tried(false, {
      chroot: 'os.chroot("/images")',
      root: 'os.setuid(0)',
      proc: 'os.listdir("/proc")',
      mount: '(libc.mount(b"t", b"/images", b"tmpfs", 0, None), ctypes.get_errno())[1] == errno.EPERM',
      trace: `(libc.ptrace(16, ${process.pid}, None, None), ctypes.get_errno())[1] == errno.EPERM`,
      kill: `os.kill(${process.pid}, 0)`,
      connect,
    }),
    {
      ...{ chroot: 'EPERM', root: 'EPERM', proc: 'ENOENT', mount: 'True', trace: 'True', kill: 'EPERM' },
      connect: 'ENETUNREACH',
    },
  );
});

t.test('a file that is another by now', async (t) => {
  const file = ownedBy(0, 'exchanged');
  const view = {
    confinement: { by: 'namespaces' as const, ...account, root },
    files: [{ ...file, id: '1:1' }],
  };
  const { program, args } = confinedCommand(view, '/usr/bin/python3', ['-c', 'print("opened")']);
  const { stdout, stderr, status } = spawnSync(program, args, { encoding: 'utf8' });
  t.match({ stdout, stderr, status }, { stdout: '', stderr: /exchanged is no longer the file/, status: 1 });
});
