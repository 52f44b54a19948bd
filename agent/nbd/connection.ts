import { connect, type OnReadOpts, type Socket } from 'node:net';

import { NbdError } from './error.js';
import { maxSocketPath, type NbdAddress } from './uri.js';

/**
 * A stream of bytes to an NBD peer, read in exact pieces. Knows nothing of the protocol. Both ends of one use it:
 * a client through `dial`, a server with a socket that it accepted.
 */
export class Connection {
  readonly socket: Socket;
  #failure: Error | undefined;
  #waiting: { length: number; resolve: (bytes: Buffer) => void; reject: (error: Error) => void } | undefined;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('readable', () => this.#deliver());
    socket.on('error', (cause: NodeJS.ErrnoException) => {
      this.#fail(cause instanceof NbdError ? cause : closed(cause.message, cause));
    });
    socket.on('end', () => this.#fail(closed('it ended the connection')));
    socket.on('close', () => this.#fail(closed('the connection is closed')));
  }

  /** Why nothing more can be read or written; undefined while it can. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Exactly so many bytes. NbdError `closed` where the peer ends before. One read at a time. */
  read(length: number): Promise<Buffer> {
    if (this.#waiting) throw new Error('Two reads at once on an NBD connection.');
    return new Promise((resolve, reject) => {
      this.#waiting = { length, resolve, reject };
      this.#deliver();
    });
  }

  /** Queues bytes; that they could not be sent shows in the read of the answer. */
  write(bytes: Buffer): void {
    if (!this.#failure) this.socket.write(bytes);
  }

  /**
   * Returns when the peer has taken enough of what was queued: whoever answers without end waits for that, so that a
   * peer which reads nothing fills no memory. NbdError `closed` where it is gone.
   */
  async drained(): Promise<void> {
    const { socket } = this;
    while (!this.#failure && socket.writableNeedDrain) {
      await new Promise<void>((resolve) => {
        const over = () => {
          socket.off('drain', over).off('close', over);
          resolve();
        };
        socket.once('drain', over).once('close', over);
      });
    }
    if (this.#failure) throw this.#failure;
  }

  /** Gives the socket up to whoever reads it from here on. What has come and was not read is still in it. */
  release(): Socket {
    this.socket.removeAllListeners('readable');
    return this.socket;
  }

  /** Drops the connection; reads that wait fail with `reason`. Idempotent. */
  destroy(reason: Error): void {
    this.#fail(reason);
    this.socket.destroy();
  }

  /**
   * Sends what is queued, waits for the peer to end as well, and returns when the connection is gone: after
   * `graceMs` at the latest. What the peer still sends is not read any more. Idempotent.
   */
  async finish(graceMs: number): Promise<void> {
    const { socket } = this;
    if (socket.closed) return;
    const gone = new Promise((resolve) => socket.once('close', resolve));
    // While somebody listens for 'readable', resume() does nothing, and unread bytes would hide the end.
    socket.removeAllListeners('readable');
    socket.resume();
    socket.end();
    const timer = setTimeout(() => socket.destroy(), graceMs);
    await gone;
    clearTimeout(timer);
  }

  #deliver(): void {
    const waiting = this.#waiting;
    if (!waiting) return;
    const bytes: Buffer | null = waiting.length === 0 ? Buffer.alloc(0) : this.socket.read(waiting.length);
    if (bytes?.length === waiting.length) {
      this.#waiting = undefined;
      waiting.resolve(bytes);
      return;
    }
    // At the end of the stream read() hands out what is left, however little.
    if (bytes) this.#fail(closed('it ended in the middle of a message'));
    else if (this.#failure) this.#fail(this.#failure);
  }

  #fail(failure: Error): void {
    this.#failure ??= failure;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.reject(this.#failure);
  }
}

function closed(how: string, cause?: unknown): NbdError {
  return new NbdError('closed', `The NBD peer is gone: ${how}.`, { cause });
}

/**
 * Connects. NbdError `unreachable` where nobody listens; the signal's reason when it aborts meanwhile. The caller ends
 * the connection.
 * @param onread as of `net.connect`: takes what arrives in place of the stream, and may push it there itself
 */
export async function dial(
  address: NbdAddress,
  signal: AbortSignal,
  onread?: (socket: () => Socket) => OnReadOpts,
): Promise<Connection> {
  signal.throwIfAborted();
  if (address.transport === 'unix' && Buffer.byteLength(address.socket) > maxSocketPath) {
    throw unreachable(address, Object.assign(new Error('the path is too long'), { code: 'ENAMETOOLONG' }));
  }
  const socket: Socket = connect({
    ...(address.transport === 'unix'
      ? { path: address.socket }
      : { host: address.host, port: address.port, noDelay: true }),
    ...(onread && { onread: onread(() => socket) }),
  });
  await new Promise<void>((resolve, reject) => {
    const onAbort = () => {
      socket.destroy();
      reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    socket.once('connect', () => {
      signal.removeEventListener('abort', onAbort);
      socket.removeAllListeners('error');
      resolve();
    });
    socket.once('error', (cause: NodeJS.ErrnoException) => {
      signal.removeEventListener('abort', onAbort);
      reject(unreachable(address, cause));
    });
  });
  return new Connection(socket);
}

function unreachable(address: NbdAddress, cause: NodeJS.ErrnoException): NbdError {
  const where = address.transport === 'unix' ? address.socket : `${address.host} port ${address.port}`;
  const options = { cause, ...(cause.code !== undefined && { code: cause.code }) };
  return new NbdError('unreachable', `No NBD server answers at ${where}: ${cause.message}.`, options);
}

/** Runs `work`, and drops the connection with the signal's reason should that abort meanwhile. */
export async function guarded<T>(
  connection: Connection,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T> {
  const onAbort = () => connection.destroy(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    signal.throwIfAborted();
    return await work();
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
