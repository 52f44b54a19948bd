// Run by test/host.test.ts, which kills it: a test process with a host, a process in it that ignores signals, and a
// daemonized one. Says where they are and then does nothing.
import { statSync } from 'node:fs';
import { startHost } from './host.js';

const host = await startHost({ teardown: () => {} });
await host.spawn('sh', ['-c', 'trap "" TERM HUP INT; while :; do sleep 1; done']);
await host.must('sh', ['-c', 'setsid sleep 600 >/dev/null 2>&1 &']);
process.stdout.write(
  `${JSON.stringify({ dir: host.dir, namespace: statSync(`/proc/${host.pid}/ns/pid`).ino })}\n`,
);
setInterval(() => {}, 60_000);
