/** Replies of an NBD server to our client, in process: the handshake, and block status in both forms. */
import type { Socket } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { AgentError } from '../../agent/errors.js';
import { blockStatus } from '../../agent/nbd/block-status.js';
import { fetchExports, fetchMetaContexts, NbdClient } from '../../agent/nbd/client.js';
import { NbdError } from '../../agent/nbd/error.js';
import { probe } from '../../agent/nbd/probe.js';
import type { SeededRandom } from '../golden/random.js';
import { damaged, inPieces } from './bytes.js';
import { checkHeld, ownGauges } from './gauges.js';
import { wrongStatus } from './nbd-damage.js';
import { checkPage, Heard } from './nbd-heard.js';
import { chunkBytes, NbdFake, type SaidContext, type ServedDisk, type ServerMessage } from './nbd-server.js';
import type { Fuzzer } from './run.js';

/** Milliseconds that the client gives a server for each step: a silent one costs every input that long. */
const PATIENCE_MS = 150;
/** Pages that are read of a disk at most: a server that answers one block at a time may go on for ever. */
const MOST_PAGES = 300;

const CONTEXTS = ['base:allocation', 'qemu:dirty-bitmap:b'] as const;

export async function nbdFuzzer(): Promise<Fuzzer> {
  return {
    name: 'nbd',
    parallel: 12,
    deadlineMs: 20_000,
    warmUp: 400,
    growthMiB: 192,
    async play(random, about) {
      const disk = someDisk(random);
      const plan = somePlan(random);
      about(
        JSON.stringify({ ...disk, ...plan }, (_, value) =>
          typeof value === 'bigint' ? Number(value) : value,
        ).slice(0, 1500),
      );
      const heard = new Heard();
      const fake = await new NbdFake(disk, damage(random, plan, heard)).start();
      try {
        await use(random, fake.socket, disk, heard);
        checkHeld();
        for (let turns = 0; fake.connections > 0 && turns < 200; turns++) await nextTurn();
        if (fake.connections > 0) throw new Error('the client left its connection open');
      } finally {
        await fake.stop();
      }
    },
    gauges: ownGauges,
  };
}

interface DamagePlan {
  /** The message, counted from the greeting on, from which on there is damage. */
  readonly from: number;
  /** So many messages are damaged. */
  readonly messages: number;
  readonly how: 'fields' | 'bytes' | 'end' | 'reset' | 'silence';
}

function somePlan(random: SeededRandom): DamagePlan {
  const how = random.pick<DamagePlan['how']>([
    'fields',
    'fields',
    'fields',
    'fields',
    'bytes',
    'bytes',
    'bytes',
    'end',
    'reset',
    'silence',
  ]);
  // Seven or eight messages open an export; what follows are replies.
  return {
    from: random.pick([0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 9, 10, 12]),
    messages: random.pick([1, 1, 2, 100]),
    how,
  };
}

function someDisk(random: SeededRandom): ServedDisk {
  const block = random.pick([1, 512, 4096]);
  const size = BigInt(512 * (8 + random.below(4096)) + (random.chance(0.2) ? random.below(511) : 0));
  const contexts = CONTEXTS.map((name, i): SaidContext => {
    const extents = [];
    for (let at = 0n; at < size; ) {
      const wanted = BigInt(512 * (1 + random.below(500)));
      const length = at + wanted > size ? size - at : wanted;
      extents.push({ length, flags: BigInt(random.below(4)) });
      at += length;
    }
    return { name, id: i + 1 + random.below(2) * 70_000, extents };
  });
  return {
    size,
    contexts,
    extended: random.chance(0.5),
    blockSizes: random.chance(0.7) ? [block, 4096, 2 ** 25] : null,
  };
}

function damage(random: SeededRandom, plan: DamagePlan, heard: Heard) {
  let number = 0;
  return (message: ServerMessage, socket: Socket): void => {
    const hurt = number >= plan.from && number < plan.from + plan.messages;
    number++;
    if (hurt && (plan.how === 'end' || plan.how === 'reset')) {
      if (plan.how === 'end') socket.end();
      else socket.destroy();
      return;
    }
    const right = message.kind === 'status' ? Buffer.concat(message.chunks.map(chunkBytes)) : message.bytes;
    if (message.kind === 'status') heard.asked(message.request);
    if (hurt && plan.how === 'silence') return;
    const bytes = !hurt
      ? right
      : message.kind === 'status' && plan.how === 'fields'
        ? wrongStatus(random, message.chunks, message.request)
        : damaged(random, right);
    if (message.kind === 'status') heard.sent(bytes);
    void send(socket, inPieces(random, bytes));
  };
}

/** Pieces of one message must not get between those of the next: a queue a socket. */
const queues = new WeakMap<Socket, Promise<void>>();

async function send(socket: Socket, pieces: readonly Buffer[]): Promise<void> {
  const before = queues.get(socket);
  const sent = (async () => {
    await before;
    for (const piece of pieces) {
      socket.write(piece);
      if (pieces.length > 1) await nextTurn();
    }
  })();
  queues.set(socket, sent);
  await sent;
}

/** Does one of the things that the agent does with a server. What it throws must be one of its own errors. */
async function use(random: SeededRandom, path: string, disk: ServedDisk, heard: Heard): Promise<void> {
  const address = { transport: 'unix', socket: path } as const;
  const wait = { timeoutMs: PATIENCE_MS };
  const what = random.below(20);
  try {
    if (what === 0) await probe(address, wait);
    else if (what === 1) await fetchExports(address, wait);
    else if (what === 2) await fetchMetaContexts(address, 'd', wait);
    else await readAll(random, address, disk, heard);
  } catch (error) {
    if (error instanceof NbdError) return;
    if (error instanceof AgentError && error.name === 'Timeout') return;
    throw error;
  }
}

async function readAll(
  random: SeededRandom,
  address: { transport: 'unix'; socket: string },
  disk: ServedDisk,
  heard: Heard,
): Promise<void> {
  const contexts = random.chance(0.5) ? CONTEXTS : CONTEXTS.slice(0, 1);
  const client = await NbdClient.connect(address, { exportName: 'd', contexts, timeoutMs: PATIENCE_MS });
  try {
    const { size } = client.facts;
    const offset = random.chance(0.5) ? 0 : Math.min(size, random.below(Number(disk.size)));
    const length = random.chance(0.5)
      ? size - offset
      : Math.min(size - offset, random.below(Number(disk.size)));
    const longestRequest = random.pick([512, 65_536, 2 ** 20, 2 ** 40]);
    let at = offset;
    let pages = 0;
    for await (const page of blockStatus(client, {
      offset,
      length,
      longestRequest,
      timeoutMs: PATIENCE_MS,
    })) {
      if (page.start !== at || page.length <= 0) throw new Error(`a page at ${page.start}, not at ${at}`);
      const said = heard.next();
      for (const { name, id } of client.contexts) checkPage(page, page.extents.get(name) ?? [], said.get(id));
      at += page.length;
      if (++pages > MOST_PAGES) return;
    }
    if (at !== offset + length) throw new Error(`the map ends at ${at}, not at ${offset + length}`);
  } finally {
    await client.close();
  }
}
