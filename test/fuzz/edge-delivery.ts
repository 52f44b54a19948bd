/** The ways in which a client gets its bytes to the daemon, from the usual to the rude. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { SeededRandom } from '../golden/random.js';

export interface Delivery {
  /** `dropped`: the client hangs up in the middle, and nobody reads an answer. */
  readonly kind: 'whole' | 'split' | 'bytewise' | 'unread' | 'dropped';
  readonly chunks: readonly Buffer[];
}

/** More bytes than these one by one only take time. */
const MOST_BYTEWISE = 1500;

export function pickDelivery(random: SeededRandom, bytes: Buffer): Delivery {
  const kind = random.pick(['whole', 'whole', 'split', 'bytewise', 'unread', 'dropped']);
  if (kind === 'bytewise' && bytes.length <= MOST_BYTEWISE) return { kind, chunks: cut(bytes, bytes.keys()) };
  if (kind === 'dropped') return { kind, chunks: [bytes.subarray(0, random.below(bytes.length + 1))] };
  if (kind === 'whole' || kind === 'unread') return { kind, chunks: [bytes] };
  const places = Array.from({ length: 1 + random.below(8) }, () => random.below(bytes.length + 1));
  return {
    kind: 'split',
    chunks: cut(
      bytes,
      places.sort((a, b) => a - b),
    ),
  };
}

function cut(bytes: Buffer, places: Iterable<number>): Buffer[] {
  const borders = [0, ...places, bytes.length];
  return borders.slice(1).map((end, i) => bytes.subarray(borders[i], end));
}

/**
 * Sends, ends its own side, and returns the lines that came until the daemon ended the other. `dropped`, too, where it writes
 * on after the daemon has hung up on it, as it may on a frame that is too long: what was not read by then is lost to it.
 */
export async function deliver(path: string, { kind, chunks }: Delivery): Promise<string[] | 'dropped'> {
  const socket = connect({ path, allowHalfOpen: true });
  const closed = once(socket, 'close');
  closed.catch(() => {}); // it may come between two writes; who waits for it is told
  let text = '';
  socket.setEncoding('utf8').on('data', (part: string) => {
    text += part;
  });
  try {
    await once(socket, 'connect');
    if (kind === 'unread') socket.pause();
    for (const chunk of chunks) {
      socket.write(chunk);
      if (chunks.length > 1) await nextTurn();
    }
    if (kind === 'dropped') {
      socket.destroy();
      await closed;
      return 'dropped';
    }
    socket.end();
    if (kind === 'unread') {
      await nextTurn();
      socket.resume();
    }
    await closed;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
    return 'dropped';
  } finally {
    socket.destroy();
  }
  if (text !== '' && !text.endsWith('\n')) throw new Error(`an answer was cut off: ${text.slice(-200)}`);
  return text.split('\n').slice(0, -1);
}
