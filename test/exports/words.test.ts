/** What exports' servers say on stderr reaches the log: each line once, bounded, over a restart, to the last word. Needs root. */
import { appendFileSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { DaemonHandle } from '../host/daemon.js';
import { type Host, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import { smallImage } from '../points-in-time/rig.js';
import { MiB, prepare, readRecord, verb } from './rig.js';

t.setTimeout(300_000);

const config = { limits: { scratchReserve: MiB } };
let host: Host;
let daemon: DaemonHandle;
let image = '';

t.before(async () => {
  host = await startHost(t);
  image = await smallImage({ host, name: 'image.qcow2' });
  daemon = await host.startDaemon(config);
});

const say = (text: string, file = 'qemu-nbd.log') =>
  appendFileSync(host.path(`/run/vmdiskd/exports/e/${file}`), text);
const linesWith = (words: RegExp) =>
  daemon
    .log()
    .split('\n')
    .filter((line) => words.test(line))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
const heard = (words: RegExp) => poll(`${words} to be passed on`, 20_000, () => linesWith(words).length > 0);

t.test('each line once, with the export and its unit, when it is whole', async (t) => {
  await prepare(daemon, { exportId: 'e', path: image, format: 'qcow2' });
  say('first line\nhalf a li');
  await heard(/first line/);
  t.match(linesWith(/first line/), [
    {
      ...{ level: 'warn', module: 'exports', msg: 'first line' },
      ...{ exportId: 'e', unit: 'vmdiskd-export-e.service' },
    },
  ]);
  say('ne\nlast line\n');
  await heard(/last line/);
  await sleep(2500);
  t.equal(linesWith(/first line|half a line|last line/).length, 3, 'and not again');
});

t.test('a server that says too much is cut short, with a word of it', async (t) => {
  say(Array.from({ length: 40 }, (_, i) => `many ${i}\n`).join(''));
  await heard(/says more than is passed on/);
  t.equal(linesWith(/"msg":"many \d+"/).length, 10);
  t.match(linesWith(/says more/), [{ exportId: 'e', lines: 30 }]);
  say(`${'flood '.repeat(20_000)}\n`);
  await poll('the flood to be left out', 20_000, () => linesWith(/says more/).length > 1);
  const bytes = linesWith(/says more/).map((line) => Number(line.bytes));
  t.ok((bytes.at(-1) ?? 0) > 50_000);
  say(`${'flood '.repeat(200_000)}\n`);
  const file = host.path('/run/vmdiskd/exports/e/qemu-nbd.log');
  await poll('the file to be emptied', 20_000, () => statSync(file).size === 0);
  say('after the flood\n');
  await heard(/after the flood/);
});

t.test('over a restart nothing comes twice; a dead server is heard out', async (t) => {
  await daemon.kill();
  say('said to nobody\n');
  daemon = await host.startDaemon(config);
  await heard(/"msg":"said to nobody"/);
  await sleep(2500);
  t.strictSame(linesWith(/first line|after the flood/), []);
  const record = readRecord(host, 'e') as { server: { process: { identity: { pid: number } } } };
  await host.must('kill', ['-KILL', String(record.server.process.identity.pid)]);
  say('last words');
  await heard(/"msg":"last words"/);
  await verb(daemon, 'teardownBackupDisk', { exportId: 'e' });
});
