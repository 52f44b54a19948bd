/** Clients that read an export slowly until they are told to go on, so that something can happen meanwhile. */
import type { PrepareBackupDiskResult } from '../../agent/api/generated.js';
import { poll } from '../host/poll.js';
import { expect } from './steps.js';
import type { World } from './world.js';

const END_DEADLINE_MS = 120_000;
/** Inside: where it is, readers read as fast as they can. */
const HURRY = '/root/hurry';

export interface Reader {
  name: string;
  /** SHA-256 of what it should read. */
  wanted: string;
}

const fileOf = ({ name }: Reader): string => `/root/read-${name}.raw`;
const unitOf = ({ name }: Reader): string => `reader-${name}.service`;

/** Begins a reader, with one connection, which is all that it will ever make. */
export async function startReader(
  { machine }: World,
  reader: Reader,
  { uri, credentials }: Pick<PrepareBackupDiskResult, 'uri' | 'credentials'>,
): Promise<void> {
  let from = uri;
  if (credentials !== undefined) {
    const keys = `/root/${reader.name}.psk`;
    await machine.sh(`umask 077; echo '${credentials.identity}:${credentials.key}' >${keys}`);
    from = `${uri}?tls-psk-file=${keys}`;
  }
  // 128 KiB each half second: minutes for 64 MiB. nbdcopy waits in its pipe, and the server for nbdcopy.
  const slowly = `until [ -e ${HURRY} ]; do dd bs=128k count=1 iflag=fullblock status=none; sleep 0.5; done; cat`;
  const script = `set -o pipefail; nbdcopy --connections=1 '${from}' - | { ${slowly}; } >${fileOf(reader)}`;
  const unit = ['systemd-run', '--quiet', `--unit=${unitOf(reader)}`, '--remain-after-exit'];
  await machine.must([...unit, 'bash', '-c', script]);
  await poll(`${reader.name} to read`, 20_000, async () => (await bytesRead(machine, reader)) > 0, 200);
}

/** @throws Error where one has ended, or reads no more */
export async function expectReading({ machine }: World, readers: readonly Reader[]): Promise<void> {
  for (const reader of readers) {
    const substate = await machine.must(['systemctl', 'show', '--value', '-p', 'SubState', unitOf(reader)]);
    expect(substate === 'running', `${reader.name} reads no more: it is ${substate}`);
    const before = await bytesRead(machine, reader);
    const more = async (): Promise<boolean> => (await bytesRead(machine, reader)) > before;
    await poll(`${reader.name} to read on`, 20_000, more, 200);
  }
}

/** Lets them read to the end. @throws Error where one has read something else than it should */
export async function finishReaders({ machine }: World, readers: readonly Reader[]): Promise<void> {
  await machine.must(['touch', HURRY]);
  try {
    for (const reader of readers) {
      const show = ['systemctl', 'show', '--value', '-p', 'SubState', unitOf(reader)];
      await poll(
        `${reader.name} to end`,
        END_DEADLINE_MS,
        async () => (await machine.must(show)) !== 'running',
        200,
      );
      const substate = await machine.must(show);
      const log = await machine.must(['journalctl', '-o', 'cat', '-u', unitOf(reader)]);
      expect(substate === 'exited', `${reader.name} has ${substate}: ${log}`);
      const sum = (await machine.must(['sha256sum', fileOf(reader)])).slice(0, 64);
      expect(sum === reader.wanted, `${reader.name} has read something else than the point in time`);
    }
  } finally {
    for (const reader of readers) {
      await machine.run(['systemctl', 'stop', unitOf(reader)]);
      await machine.run(['systemctl', 'reset-failed', unitOf(reader)]);
      await machine.run(['rm', '-f', fileOf(reader), `/root/${reader.name}.psk`]);
    }
    await machine.run(['rm', '-f', HURRY]);
  }
}

async function bytesRead(machine: World['machine'], reader: Reader): Promise<number> {
  const { stdout } = await machine.run(['stat', '-c', '%s', fileOf(reader)]);
  return Number(stdout);
}
