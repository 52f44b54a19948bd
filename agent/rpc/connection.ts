/** One client's connection: reads its messages no faster than it takes the answers. */
import type { Socket } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Dispatcher, type Peer, parseErrorAnswer } from './dispatcher.js';
import { answerWithoutId, invalidRequest } from './error-answer.js';
import { FrameReader, FrameTooLong } from './framing.js';
import type { EdgeLimits } from './limits.js';
import { callsOf, parsed } from './message.js';

export interface ConnectionOptions {
  readonly dispatcher: Dispatcher;
  readonly peer: Peer;
  readonly frameBytes: number;
  readonly edge: EdgeLimits;
}

export class Connection {
  readonly #socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #reader: FrameReader;
  /** The work on what has been read; settles when every message of it has been taken. Never rejects. */
  #taking = Promise.resolve();
  /** Calls that are at work, or whose answers the kernel has not taken yet. */
  #outstanding = 0;
  #hasRoom: (() => void) | undefined;
  /** No message is taken any more; the connection ends when nothing is outstanding. */
  #finishing = false;
  #brokenInARow = 0;
  #stall: NodeJS.Timeout | undefined;
  #closing = false;

  /** @param socket made with `allowHalfOpen`: a client may end its side and still read its answers */
  constructor(socket: Socket, options: ConnectionOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#reader = new FrameReader(options.frameBytes);
    socket.on('data', (chunk: Buffer) => {
      if (this.#finishing) return;
      socket.pause();
      // #take handles its own faults.
      this.#taking = this.#take(chunk).then(() => void socket.resume());
    });
    // A pause does not hold back the end: messages that were read before it may still wait for their turn.
    socket.on('end', () => void this.#taking.then(() => this.finish()));
    // A reset is how some clients leave; 'close' follows.
    socket.on('error', (error) => options.peer.log.debug({ err: error }, 'connection'));
    socket.on('close', () => {
      this.#finishing = true;
      clearTimeout(this.#stall);
      this.#hasRoom?.();
    });
  }

  /** Takes no more messages, answers those taken, and closes. Idempotent. */
  finish(): void {
    if (this.#finishing) return;
    this.#finishing = true;
    this.#hasRoom?.();
    this.#endIfDone();
  }

  /** Closes at once. */
  destroy(): void {
    this.#socket.destroy();
  }

  async #take(chunk: Buffer): Promise<void> {
    let turn = performance.now();
    try {
      for (const frame of this.#reader.push(chunk)) {
        this.#accept(frame);
        while (this.#outstanding >= this.#options.edge.outstanding && !this.#finishing) await this.#room();
        if (performance.now() - turn > this.#options.edge.turnMilliseconds) {
          await nextTurn();
          turn = performance.now();
        }
        if (this.#finishing) return;
      }
    } catch (error) {
      if (!(error instanceof FrameTooLong)) throw error;
      this.#refuse(
        answerWithoutId(invalidRequest(`${error.message} The connection is closed.`)),
        error.message,
      );
    }
  }

  #accept(frame: Buffer): void {
    if (isBlank(frame)) return;
    const message = parsed(frame);
    if (message === undefined) {
      this.#brokenInARow++;
      if (this.#brokenInARow < this.#options.edge.brokenFrames) this.#tell(parseErrorAnswer());
      else this.#refuse(parseErrorAnswer(), 'too many messages in a row that are not JSON');
      return;
    }
    this.#brokenInARow = 0;
    const calls = callsOf(message.value);
    this.#outstanding += calls;
    const { dispatcher, peer } = this.#options;
    void dispatcher.answer(message.value, peer).then((text) => {
      if (text === undefined) this.#release(calls);
      else this.#send(text, calls);
    });
  }

  /** Sends what no call asked for; it counts as one until it is sent. */
  #tell(text: string): void {
    this.#outstanding += 1;
    this.#send(text, 1);
  }

  /** Sends the answer to so many outstanding calls, and releases them when the kernel has taken it. */
  #send(text: string, calls: number): void {
    const { edge, peer } = this.#options;
    if (this.#socket.writableLength > edge.unsentBytes) {
      peer.log.warn(
        { unsentBytes: this.#socket.writableLength },
        'a client left its answers unread: disconnected',
      );
      this.destroy();
    }
    if (!this.#socket.destroyed) this.#stall ??= setTimeout(() => this.#stalled(), edge.stallSeconds * 1000);
    this.#socket.write(text, () => {
      if (this.#socket.writableLength > 0) this.#stall?.refresh();
      else {
        clearTimeout(this.#stall);
        this.#stall = undefined;
      }
      this.#release(calls);
    });
  }

  #stalled(): void {
    this.#options.peer.log.warn('a client does not take its answers: disconnected');
    this.destroy();
  }

  #release(calls: number): void {
    this.#outstanding -= calls;
    this.#hasRoom?.();
    this.#endIfDone();
  }

  async #room(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#hasRoom = resolve;
    });
    this.#hasRoom = undefined;
  }

  /** Says why, takes no more messages, and closes when the answers that are under way have been sent. */
  #refuse(answer: string, reason: string): void {
    this.#options.peer.log.warn({ reason }, 'connection refused');
    this.#tell(answer);
    this.finish();
  }

  #endIfDone(): void {
    if (!this.#finishing || this.#outstanding > 0 || this.#closing || this.#socket.destroyed) return;
    this.#closing = true;
    closeGently(this.#socket, this.#options.edge.lingerSeconds);
  }
}

/**
 * Ends our side and throws away what still comes, for a while: closed with bytes unread, the kernel resets the
 * connection, and a client in the middle of writing loses the answer that says why.
 */
export function closeGently(socket: Socket, lingerSeconds: number): void {
  socket.end();
  socket.on('end', () => socket.destroy());
  if (socket.readableEnded) socket.destroySoon();
  else socket.resume();
  const linger = setTimeout(() => socket.destroy(), lingerSeconds * 1000);
  socket.on('close', () => clearTimeout(linger));
}

/** An empty line between messages is harmless. */
function isBlank(frame: Buffer): boolean {
  return frame.length === 0 || (frame.length === 1 && frame[0] === 0x0d);
}
