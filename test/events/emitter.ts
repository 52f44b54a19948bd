// A process that opens the journal in argv[2], says in the file argv[3] what it gives, and dies as argv[4] says:
// `at once`: by SIGKILL right after the last of argv[5] events, before the loop can have written them;
// `in time`: by SIGKILL from outside, while it emits and the disk keeps up or not.
import { openSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { EventJournal } from '../../agent/events/journal.js';
import { createLog } from '../../agent/log.js';

const [dir = '', file = '', how, count = '1'] = process.argv.slice(2);
const said = openSync(file, 'a');
const journal = await EventJournal.open(
  dir,
  { events: 10_000, bytes: 8 << 20 },
  createLog({ level: 'error' }),
);
let made = 0;
const emit = () => {
  const reason = `${process.pid}-${made++}`;
  journal.emit({ kind: 'libvirtLost', reason });
  // At once: a client may have it before the disk does.
  writeSync(said, `${JSON.stringify({ journal: journal.id, seq: journal.newest, reason })}\n`);
};
if (how === 'at once') {
  for (let i = 0; i < Number(count); i++) emit();
  process.kill(process.pid, 'SIGKILL');
}
for (;;) {
  for (let i = 0; i < 5; i++) emit();
  await sleep(1);
}
