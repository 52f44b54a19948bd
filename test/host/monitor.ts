import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import type { Host } from './host.js';
import { poll } from './poll.js';

const ANSWER_DEADLINE_MS = 60_000;

/** A job in QEMU, as `query-jobs` shows it. */
export interface QemuJob {
  id: string;
  status: string;
}

/** QEMU's own monitor. It serves one at a time: libvirtd has to be gone. */
export interface Monitor {
  execute<Result = unknown>(command: string, args?: object): Promise<Result>;
  /** Lets the one block job go as fast as it can, and returns when it is in that state. */
  job(status: string): Promise<QemuJob>;
}

/** Speaks to a domain's QEMU in libvirtd's absence. @param id the number that libvirt gave to the running domain */
export async function withMonitor(
  host: Host,
  domain: { id: number; name: string },
  work: (monitor: Monitor) => Promise<void>,
): Promise<void> {
  const socket = connect(host.path(`/var/lib/libvirt/qemu/domain-${domain.id}-${domain.name}/monitor.sock`));
  const waiting: ((answer: Record<string, unknown> | Error) => void)[] = [];
  const end = (why: Error) => {
    for (const settle of waiting.splice(0)) settle(why);
  };
  socket.on('error', end).on('close', () => end(new Error('QEMU closed its monitor')));
  socket.setTimeout(ANSWER_DEADLINE_MS, () => socket.destroy(new Error('QEMU does not answer')));
  createInterface({ input: socket }).on('line', (line) => {
    const message = JSON.parse(line);
    if ('return' in message || 'error' in message) waiting.shift()?.(message); // the rest are events
  });
  const execute = async <Result>(command: string, args: object = {}): Promise<Result> => {
    const answer = await new Promise<Record<string, unknown> | Error>((settle) => {
      waiting.push(settle);
      socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    });
    if (answer instanceof Error) throw answer;
    if ('error' in answer) throw new Error(`${command}: ${JSON.stringify(answer.error)}`);
    return answer.return as Result;
  };
  const job = async (status: string): Promise<QemuJob> => {
    let found: QemuJob | undefined;
    await poll(`QEMU's job to be ${status}`, ANSWER_DEADLINE_MS, async () => {
      [found] = await execute<QemuJob[]>('query-jobs');
      if (found === undefined) throw new Error('QEMU has no job');
      if (found.status === 'running') await execute('block-job-set-speed', { device: found.id, speed: 0 });
      return found.status === status;
    });
    return found as QemuJob;
  };
  try {
    await execute('qmp_capabilities');
    await work({ execute, job });
  } finally {
    socket.destroy();
  }
}
