/**
 * A libvirtd of bytes, for what the real one cannot be made to do: garbage, silence, half messages. It builds its
 * messages by hand, so that a mistake in our encoder does not hide itself.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { poll } from '../host/poll.js';

const WAIT_MS = 20_000;

/** REMOTE_PROC_..., as far as the tests name them. */
export const Proc = {
  open: 1,
  getHostname: 59,
  supportsFeature: 60,
  authList: 66,
  authPolkit: 70,
  getState: 212,
  register: 316,
  deregister: 317,
  registerClose: 360,
};

/** 32-bit big-endian words. */
export const words = (...values: number[]): Buffer => {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [i, value] of values.entries()) bytes.writeUInt32BE(value >>> 0, i * 4);
  return bytes;
};

/** An XDR string: length, bytes, zeros up to a multiple of four. */
export const str = (value: string): Buffer => {
  const bytes = Buffer.from(value);
  return Buffer.concat([words(bytes.length), bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
};

/** A remote_nonnull_domain: name, 16 bytes of UUID, id. */
export const dom = (name: string, uuidByte: number, id = 1): Buffer =>
  Buffer.concat([str(name), Buffer.alloc(16, uuidByte), words(id)]);

/** A whole message: its length, then program, version, procedure, type, serial, status, payload. */
export const message = (header: number[], payload: Buffer = Buffer.alloc(0)): Buffer =>
  Buffer.concat([words(28 + payload.length, ...header), payload]);

/** A message of libvirt's own program that is no reply: type 2, serial 0. */
export const event = (procedure: number, payload: Buffer): Buffer =>
  message([0x20008086, 1, procedure, 2, 0, 0], payload);

/** What the client sent. */
export interface Received {
  readonly program: number;
  readonly procedure: number;
  readonly type: number;
  readonly serial: number;
  readonly payload: Buffer;
  readonly peer: Peer;
}

/** One client's connection. */
export class Peer {
  readonly received: Received[] = [];
  closed = false;
  #bytes = Buffer.alloc(0);

  constructor(
    readonly socket: Socket,
    onMessage: (message: Received) => void,
  ) {
    socket.on('error', () => {}); // the client may go at any time
    socket.on('close', () => {
      this.closed = true;
    });
    socket.on('data', (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      while (this.#bytes.length >= 4 && this.#bytes.length >= this.#bytes.readUInt32BE(0)) {
        const frame = this.#bytes.subarray(0, this.#bytes.readUInt32BE(0));
        this.#bytes = this.#bytes.subarray(frame.length);
        const received = {
          program: frame.readUInt32BE(4),
          procedure: frame.readInt32BE(12),
          type: frame.readInt32BE(16),
          serial: frame.readUInt32BE(20),
          payload: frame.subarray(28),
          peer: this,
        };
        this.received.push(received);
        onMessage(received);
      }
    });
  }

  send(...bytes: Buffer[]): void {
    this.socket.write(Buffer.concat(bytes));
  }
}

/** A reply: type 1, the call's serial, status 0. */
export const reply = (call: Received, payload: Buffer = Buffer.alloc(0)): Buffer =>
  message([0x20008086, 1, call.procedure, 1, call.serial, 0], payload);

/** A remote_error as reply: status 1, code, domain, *message, level, no domain, no strings, two ints, no network. */
export const failure = (call: Received, code: number, text: string): Buffer =>
  message(
    [0x20008086, 1, call.procedure, 1, call.serial, 1],
    Buffer.concat([words(code, 10, 1), str(text), words(2, 0, 0, 0, 0, -1, -1, 0)]),
  );

export class FakeLibvirtd {
  readonly path: string;
  readonly peers: Peer[] = [];
  /** remote_auth_type: 0 none, 1 SASL, 2 polkit. */
  auth = [0];
  keepAlive = false;
  closeCallback = false;
  /** Takes a call before the handshake's answers do; true if it dealt with it. */
  onCall: (call: Received) => boolean = () => false;
  /** Sees each new connection before anything is read; true if it deals with it alone. */
  onConnect: (socket: Socket) => boolean = () => false;
  readonly #dir = mkdtempSync('/tmp/vmd-fake-');
  #server: Server | undefined;

  constructor(t: { teardown(fn: () => unknown): unknown }) {
    this.path = `${this.#dir}/libvirt-sock`;
    t.teardown(async () => {
      await this.stop();
      rmSync(this.#dir, { recursive: true, force: true });
    });
  }

  async start(): Promise<this> {
    const server = createServer((socket) => {
      if (this.onConnect(socket)) return;
      this.peers.push(new Peer(socket, (call) => this.#serve(call)));
    });
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.path, resolve));
    return this;
  }

  /** Closes the socket and every connection, as the death of the process would. */
  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    for (const peer of this.peers) peer.socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }

  /** The messages of a procedure that have come so far, over all connections. */
  received(procedure: number): Received[] {
    return this.peers.flatMap((peer) => peer.received).filter((call) => call.procedure === procedure);
  }

  /** The `count`th message of a procedure, once it is there. */
  async wait(procedure: number, count = 1): Promise<Received> {
    await poll(
      `${count} messages of procedure ${procedure}`,
      WAIT_MS,
      async () => this.received(procedure).length >= count,
    );
    const found = this.received(procedure)[count - 1];
    if (found === undefined) throw new Error('It was there a moment ago');
    return found;
  }

  #serve(call: Received): void {
    if (call.type !== 0 || this.onCall(call)) return;
    const { peer, procedure } = call;
    if (procedure === Proc.authList) peer.send(reply(call, words(this.auth.length, ...this.auth)));
    else if (procedure === Proc.open || procedure === Proc.registerClose) peer.send(reply(call));
    else if (procedure === Proc.register) peer.send(reply(call, words(40 + call.payload.readUInt32BE(0))));
    else if (procedure === Proc.deregister) peer.send(reply(call));
    else if (procedure === Proc.supportsFeature) {
      const yes = call.payload.readUInt32BE(0) === 10 ? this.keepAlive : this.closeCallback;
      peer.send(reply(call, words(yes ? 1 : 0)));
    }
  }
}
