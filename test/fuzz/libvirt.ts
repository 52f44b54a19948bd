/** What a libvirtd may send to our client, in process, from the handshake on. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import {
  AuthenticationError,
  CallTimeoutError,
  ConnectionLostError,
  connectLibvirt,
  type LibvirtClient,
  LibvirtError,
  NotConnectedError,
  ProtocolError,
} from '../../agent/libvirt/index.js';
import type { SeededRandom } from '../golden/random.js';
import { event, FakeLibvirtd, Proc, type Received, reply, words } from '../libvirt/fake-libvirtd.js';
import { damaged, inPieces } from './bytes.js';
import { checkHeld, ownGauges } from './gauges.js';
import { type KnownCall, knownCalls, knownEvents, shapeOf } from './libvirt-calls.js';
import { strangeMessage, wrongReply } from './libvirt-damage.js';
import type { Fuzzer } from './run.js';

/** Milliseconds that the client gives each call and each step of the handshake. */
const PATIENCE_MS = 120;
/** Milliseconds after which a client must work again when its libvirtd does. */
const RECOVERY_MS = 20_000;
/** Milliseconds of silence after which a client that has keepalive has sent some. */
const SILENCE_MS = 600;
const KEEPALIVE_PROGRAM = 0x6b656570;
/** src/rpc/virnetprotocol.x: KEEPALIVE_PROC_PING. What is strange may be a ping too, and is answered by a pong. */
const PING = 1;

export async function libvirtFuzzer(): Promise<Fuzzer> {
  return {
    name: 'libvirt',
    parallel: 16,
    deadlineMs: 60_000,
    warmUp: 400,
    growthMiB: 192,
    async play(random, about) {
      const closers: (() => unknown)[] = [];
      const fake = new FakeLibvirtd({ teardown: (close) => closers.push(close) });
      const attack = new Attack(random, fake);
      about(attack.plan);
      try {
        await fake.start();
        const client = connectLibvirt({
          socket: fake.path,
          connections: 1,
          timeoutMs: PATIENCE_MS,
          connectTimeoutMs: PATIENCE_MS,
          keepAlive: { intervalMs: 40, count: 2 },
          backoff: { minMs: 1, maxMs: 5 },
        });
        try {
          await use(random, client, attack);
          checkHeld();
          attack.end();
          await recover(client, fake);
        } finally {
          await client.close();
        }
        for (let turns = 0; fake.peers.some(({ closed }) => !closed) && turns < 500; turns++)
          await nextTurn();
        if (fake.peers.some(({ closed }) => !closed)) throw new Error('the client left a connection open');
      } finally {
        for (const close of closers) await close();
      }
    },
    gauges: ownGauges,
  };
}

/** The fake's part: right answers, and from some message on wrong ones, until the attack ends. */
class Attack {
  readonly plan: string;
  readonly #random: SeededRandom;
  /** Damaged are those of these numbers, counted over all calls of the client. */
  #from: number;
  #count: number;
  #answered = 0;
  readonly #fake: FakeLibvirtd;
  readonly #how: string;

  constructor(random: SeededRandom, fake: FakeLibvirtd) {
    this.#random = random;
    this.#fake = fake;
    this.#how = random.pick([
      'wrong',
      'wrong',
      'wrong',
      'wrong',
      'wrong',
      'events',
      'events',
      'flood',
      'silence',
      'end',
      'reset',
    ]);
    // A handshake takes three to five calls, the registrations of events some more.
    this.#from = random.pick([0, 1, 2, 3, 4, 5, 8, 16, 16, 16, 17, 18, 20]);
    this.#count = random.pick([1, 1, 2, 3, 50]);

    fake.keepAlive = random.chance(0.8);
    fake.closeCallback = random.chance(0.3);
    this.plan = `${this.#how} from ${this.#from}, ${this.#count} times, ${fake.keepAlive ? 'with' : 'without'} keepalive`;
    fake.onCall = (call) => {
      this.#answer(call);
      return true;
    };
  }

  /** From now on this is a libvirtd as it should be. */
  end(): void {
    this.#count = 0;
  }

  /** What may come without being asked for. */
  unasked(): void {
    const peer = this.#fake.peers.at(-1);
    if (peer === undefined || this.#how === 'silence') return;
    const [, procedure, payload] = this.#random.pick(knownEvents);
    const right = event(procedure, payload);
    const dice = this.#random.below(this.#how === 'events' ? 6 : 60);
    if (dice === 0) peer.send(strangeMessage(this.#random));
    else if (dice === 1) peer.send(damaged(this.#random, right));
    else if (dice <= 3) peer.send(event(procedure, damaged(this.#random, payload)));
    else peer.send(right);
  }

  #answer(call: Received): void {
    const hurt = this.#answered >= this.#from && this.#answered < this.#from + this.#count;
    this.#answered++;
    const right = payloadOf(this.#fake, call);
    const how = hurt ? this.#how : 'right';
    if (how === 'end') call.peer.socket.end();
    else if (how === 'reset') call.peer.socket.destroy();
    else if (how === 'wrong') this.#send(call, wrongReply(this.#random, call, right));
    else if (how !== 'silence') {
      if (how === 'flood') for (let i = 0; i < 200; i++) call.peer.send(strangeMessage(this.#random));
      this.#send(call, reply(call, right));
    }
  }

  #send({ peer }: Received, bytes: Buffer): void {
    const pieces = inPieces(this.#random, bytes);
    for (const piece of pieces) peer.send(piece);
  }
}

/** What a libvirtd answers to the handshake and to the known calls. */
function payloadOf(fake: FakeLibvirtd, { procedure, payload }: Received): Buffer {
  switch (procedure) {
    case Proc.authList:
      return words(1, 0);
    case Proc.supportsFeature:
      return words((payload.readUInt32BE(0) === 10 ? fake.keepAlive : fake.closeCallback) ? 1 : 0);
    case Proc.register:
      return words(40 + payload.readUInt32BE(0));
    default:
      return knownCalls.find((call) => call.procedure === procedure)?.payload ?? Buffer.alloc(0);
  }
}

async function use(random: SeededRandom, client: LibvirtClient, attack: Attack): Promise<void> {
  const faults: unknown[] = [];
  const subscriptions = knownEvents.map(([name, , payload]) => {
    const listener = (message: unknown): void => {
      if (!isEvent(message))
        faults.push(new Error(`no ${name}: ${shapeOf(message)} (${payload.length} bytes)`));
    };
    return client.subscribe(name, listener);
  });
  await client.ready({ timeoutMs: PATIENCE_MS }).catch(checkError);
  for (let round = 1 + random.below(3); round > 0; round--) {
    const calls = Array.from({ length: 1 + random.below(6) }, () => random.pick(knownCalls));
    const settled = calls.map((call) => settle(client, call));
    attack.unasked();
    await Promise.all(settled);
  }
  if (random.chance(0.3)) for (const subscription of subscriptions) subscription.close();
  const [fault] = faults;
  if (fault !== undefined) throw fault;
}

/** Every event is about a domain, and its members are plain. */
function isEvent(message: unknown): boolean {
  const { domain } = message as { domain?: unknown };
  return shapeOf(domain) === '{id: number, name: string, uuid: string}' && !shapeOf(message).includes('none');
}

/** A call ends with a value of its kind or with an error of the client's own. */
async function settle(client: LibvirtClient, call: KnownCall): Promise<void> {
  let value: unknown;
  try {
    value = await call.make(client);
  } catch (error) {
    checkError(error);
    return;
  }
  const [shape, wanted] = [shapeOf(value), shapeOf(call.value)];
  // Of a list whose count was damaged there may be less, of a value that may be absent nothing.
  const less = Array.isArray(value) && value.length === 0 ? true : value === null && call.procedure === 238;
  if (shape !== wanted && !less) throw new Error(`procedure ${call.procedure} gave ${shape}, not ${wanted}`);
}

function checkError(error: unknown): void {
  const kinds = [
    LibvirtError,
    NotConnectedError,
    ConnectionLostError,
    CallTimeoutError,
    ProtocolError,
    AuthenticationError,
  ];
  if (!kinds.some((kind) => error instanceof kind)) throw error;
}

/**
 * Now that its libvirtd is sound the client works again by itself, on the old connection or a new one. Keepalive is what
 * tells it that an old one is beyond help (silent, or in the middle of a message that never ends): one whose libvirtd
 * said, or seemed to say, that it has none may stay so.
 */
async function recover(client: LibvirtClient, fake: FakeLibvirtd): Promise<void> {
  const [call] = knownCalls;
  const begun = Date.now();
  for (;;) {
    try {
      await client.ready({ timeoutMs: RECOVERY_MS });
      const value = await call.make(client);
      if (!isDeepStrictEqual(value, call.value)) throw new Error(`a sound libvirtd's answer became ${value}`);
      return;
    } catch (error) {
      checkError(error);
      const took = Date.now() - begun;
      const pinged = fake.peers
        .at(-1)
        ?.received.some(({ program, procedure }) => program === KEEPALIVE_PROGRAM && procedure === PING);
      if (client.status.connected && took > SILENCE_MS && !pinged) return;
      if (took > RECOVERY_MS) throw new Error('the client did not recover', { cause: error });
    }
  }
}
