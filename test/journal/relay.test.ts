/** Entries on their way to the journal, against a receiver of datagrams in its place. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import { JournalRelay } from '../../agent/journal/relay.js';
import { createLog, moduleLog, setLevel } from '../../agent/log.js';
import { poll } from '../host/poll.js';

/** Writes each datagram in hexadecimal, one a line. */
const RECEIVER = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(sys.argv[1])
with open(sys.argv[2], 'w', buffering=1) as out:
    while True: out.write(s.recv(1 << 20).hex() + '\\n')
`;

type Entry = Record<string, string>;

interface Receiver {
  socket: string;
  process: ChildProcess;
  entries(): Entry[];
}

async function receiver(t: Test): Promise<Receiver> {
  const dir = mkdtempSync('/tmp/vmd-journal-');
  const [socket, file] = [join(dir, 'socket'), join(dir, 'entries')];
  const process = spawn('python3', ['-c', RECEIVER, socket, file], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  t.teardown(() => {
    process.kill('SIGKILL');
    rmSync(dir, { recursive: true });
  });
  await poll('the receiver to listen', 10_000, () => existsSync(socket) && existsSync(file));
  const entries = () =>
    readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => decoded(Buffer.from(line, 'hex')));
  return { socket, process, entries };
}

/** https://systemd.io/JOURNAL_NATIVE_PROTOCOL/ from the other side. */
function decoded(datagram: Buffer): Entry {
  const entry: Entry = {};
  for (let at = 0; at < datagram.length; ) {
    const end = datagram.indexOf(0x0a, at);
    const line = datagram.toString('utf8', at, end);
    at = end + 1;
    const equals = line.indexOf('=');
    if (equals !== -1) entry[line.slice(0, equals)] = line.slice(equals + 1);
    else {
      const length = Number(datagram.readBigUInt64LE(at));
      entry[line] = datagram.toString('utf8', at + 8, at + 8 + length);
      at += 8 + length + 1;
    }
  }
  return entry;
}

function logTo(socket: string, level: 'info' | 'trace' = 'info') {
  const lines: string[] = [];
  const relay = new JournalRelay({ socket, fallback: (line) => lines.push(line) });
  const out = { write: (line: string) => void lines.push(line) };
  return { log: createLog({ level, journal: true, out, relay }), lines };
}

test('a verb is a sentence, with fields to search by', async (t) => {
  const { socket, entries } = await receiver(t);
  const { log, lines } = logTo(socket);
  log
    .child({ verb: 'teardownBackupDisk', ref: 'r1', identity: 'unix' })
    .info(
      { ms: 12, audit: true, exportId: 'mon', outcome: 'failed', error: 'ExportInUse', reason: 'In use.' },
      'verb',
    );
  log.error({ err: new Error('two\nlines'), exportId: 'mon', key: 'hush' }, 'an export has failed');
  log.warn({ unit: 'vmdiskd-export-mon.service', exportId: 'mon' }, 'words of a server');
  log.error(
    { backupId: 'b', reason: { name: 'ScratchFull', message: 'It is full.' } },
    'a backup has failed',
  );
  await poll('the entries', 10_000, () => entries().length === 4);
  const [verb, error, words, backup] = entries();
  t.equal(backup?.MESSAGE, 'a backup has failed (backupId b): It is full.');
  t.strictSame(verb, {
    MESSAGE: 'teardownBackupDisk mon: failed (ExportInUse) in 12 ms: In use.',
    PRIORITY: '6',
    SYSLOG_IDENTIFIER: 'vmdiskd',
    SYSLOG_PID: String(process.pid),
    VMDISKD_VERB: 'teardownBackupDisk',
    VMDISKD_IDENTITY: 'unix',
    VMDISKD_DURATION_MS: '12',
    VMDISKD_EXPORT: 'mon',
    VMDISKD_OUTCOME: 'failed',
    VMDISKD_FIELDS: '{"ref":"r1","audit":true,"error":"ExportInUse","reason":"In use."}',
  });
  t.match(error, {
    MESSAGE: 'an export has failed (exportId mon): two\nlines',
    PRIORITY: '3',
    VMDISKD_EXPORT: 'mon',
  });
  t.match(error?.VMDISKD_FIELDS, /"stack":/);
  t.notMatch(JSON.stringify(error), 'hush');
  t.match(words, { OBJECT_SYSTEMD_UNIT: 'vmdiskd-export-mon.service', PRIORITY: '4' });
  t.strictSame(lines, []);
});

test('all arrive, in order, and long ones cut', async (t) => {
  const { socket, entries } = await receiver(t);
  const { log, lines } = logTo(socket);
  for (let i = 0; i < 300; i++) log.info({ i }, `line ${i}`);
  log.info('x'.repeat(200_000));
  await poll('the entries', 20_000, () => entries().length + lines.length >= 301);
  const got = entries().map(({ MESSAGE }) => MESSAGE ?? '');
  t.equal(got.length + lines.length, 301, 'each once');
  const numbers = got.flatMap((text) => (text.startsWith('line ') ? [Number(text.slice(5))] : []));
  t.strictSame(
    numbers,
    numbers.toSorted((a, b) => a - b),
    'in order',
  );
});

test('what is said just before a crash is there', async (t) => {
  const { socket, entries } = await receiver(t);
  const script = `
    import { createLog } from ${JSON.stringify(new URL('../../agent/log.ts', import.meta.url).pathname)};
    import { JournalRelay } from ${JSON.stringify(new URL('../../agent/journal/relay.ts', import.meta.url).pathname)};
    const relay = new JournalRelay({ socket: process.argv[1], fallback: (line) => console.log(line) });
    const log = createLog({ level: 'info', journal: true, relay });
    log.error('last words');
    process.kill(process.pid, 'SIGKILL');`;
  const child = spawn(process.execPath, ['--import=tsx', '--input-type=module', '-e', script, socket], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [, signal] = await once(child, 'exit');
  t.equal(signal, 'SIGKILL');
  await poll('the entry', 10_000, () => entries().length === 1);
  t.match(entries(), [{ MESSAGE: 'last words' }]);
});

test('no journal, or no Perl: the lines go the other way, with their priorities', async (t) => {
  const { log, lines } = logTo('/nowhere/socket');
  log.info('one');
  await poll('the relay to die', 10_000, () => lines.length === 1);
  log.error('two');
  await poll('the other', 10_000, () => lines.length === 2);
  t.match(lines, [/^<6>\{.*"one"/, /^<3>\{.*"two"/]);
  const without: string[] = [];
  const relay = new JournalRelay({ program: '/nowhere/perl', fallback: (line) => without.push(line) });
  createLog({ level: 'info', journal: true, relay }).info('three');
  t.match(without, [/^<6>\{.*"three"/]);
});

test('a relay that is killed: nothing is lost, and the next one goes on after a while', async (t) => {
  const { socket, entries } = await receiver(t);
  const { log, lines } = logTo(socket);
  log.info('before');
  await poll('the entry', 10_000, () => entries().length === 1);
  const pids = readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, 'utf8').trim().split(' ');
  const commandOf = (pid: string) => readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  const relays = pids.filter((pid) => commandOf(pid).startsWith('vmdiskd: to the journal'));
  process.kill(Number(relays.at(-1)), 'SIGKILL'); // the children's list has the last one last
  log.info('meanwhile');
  await poll('the line', 10_000, () => lines.length === 1);
  await poll('the next relay', 20_000, () => {
    log.info('after');
    return entries().some(({ MESSAGE }) => MESSAGE === 'after');
  });
  t.match(lines[0], /meanwhile/);
});

test('debug by module', async (t) => {
  const lines: string[] = [];
  const out = { write: (line: string) => void lines.push(line) };
  const log = createLog({ level: 'info', debug: ['libvirt'], journal: false, out });
  moduleLog(log, 'libvirt').debug('one');
  moduleLog(log, 'exports').debug('not this');
  log.debug('nor this');
  setLevel(log, { level: 'warn', debug: ['exports'] });
  moduleLog(log, 'libvirt').info('nor this');
  moduleLog(log, 'exports').debug('two');
  t.match(
    lines.map((line) => JSON.parse(line)),
    [
      { module: 'libvirt', level: 'debug', msg: 'one' },
      { module: 'exports', level: 'debug', msg: 'two' },
    ],
  );
});
