/** What shop writes while it is backed up: never random, so that anybody can tell what has to be on its disk. */
import { fileURLToPath } from 'node:url';
import type { Guest } from '../host/guest.js';
import type { Host } from '../host/host.js';
import { MIB } from './stage.js';

const TOOL = fileURLToPath(new URL('../host/guest-image/tools/write-random', import.meta.url));

/** A shell command that writes bytes that only their place decides. */
export const write = (at: number, length: number): string =>
  `write-random /dev/vda ${at} ${length} seed-${at}`;

/** A guest that writes on and on, one write after another; the n-th goes to the place that `at` says in shell. */
export interface Writer {
  /** Shell arithmetic in `n`: the offset in bytes. */
  at: string;
  /** Bytes of one write. */
  length: number;
  /** Tells its writes from those of another. */
  name: string;
}

/** Over and over the same three places, which are dirty after three writes and stay all there is. */
export const THREE_PLACES: Writer = {
  at: `(5 + n % 3 * 16 + n % 3 / 2 * 3) * ${MIB}`,
  length: MIB,
  name: 'three',
};

/** Here and there, all over a disk of 64 MiB. */
export const EVERYWHERE: Writer = { at: `(n * 7 % 64) * ${MIB}`, length: MIB / 16, name: 'everywhere' };

const nthWrite = ({ at, length, name }: Writer, device: string): string =>
  `write-random ${device} $((${at})) ${length} ${name}-$n`;

export async function startWriting(guest: Guest, writer: Writer): Promise<void> {
  await guest.sh(`rm -f /tmp/stop; echo 0 >/tmp/writes; touch /tmp/writing; (n=0
    while [ ! -e /tmp/stop ]; do
      ${nthWrite(writer, '/dev/vda')}
      n=$((n + 1)); echo $n >/tmp/writes
      sleep 0.2 # the machine has others to emulate
    done; rm /tmp/writing) >/dev/null 2>&1 &`);
}

/** Returns when the guest writes no more, and has made at least so many writes. @returns how many it has made */
export async function stopWriting(guest: Guest, atLeast: number): Promise<number> {
  const enough = `while [ "$(cat /tmp/writes)" -lt ${atLeast} ]; do sleep 0.1; done`;
  const stopped = 'touch /tmp/stop; while [ -e /tmp/writing ]; do sleep 0.1; done';
  return Number(await guest.sh(`${enough}; ${stopped}; cat /tmp/writes`));
}

/** Makes the same writes once more, to a file on the host: what the guest's disk has to be. */
export async function replay(
  host: Host,
  file: string,
  first: string[],
  writer: Writer,
  writes: number,
): Promise<void> {
  const script = [
    'set -e',
    `write-random() { sh '${TOOL}' "$@"; }`,
    ...first.map((command) => command.replaceAll('/dev/vda', file)),
    `n=0; while [ $n -lt ${writes} ]; do ${nthWrite(writer, file)}; n=$((n + 1)); done`,
  ];
  await host.must('bash', ['-c', script.join('\n')]);
}
