/** One client's WebSocket: its messages are taken no faster than it takes the answers. */
import type { WebSocket } from 'ws';
import { type Dispatcher, type Peer, parseErrorAnswer } from './dispatcher.js';
import type { EdgeLimits } from './limits.js';
import { callsOf, parsed } from './message.js';

export interface WssConnectionOptions {
  readonly dispatcher: Dispatcher;
  readonly peer: Omit<Peer, 'ended'>;
  readonly edge: Pick<EdgeLimits, 'outstanding' | 'unsentBytes' | 'stallSeconds' | 'brokenFrames'>;
}

/** RFC 6455, section 7.4.1. */
const CLOSE = { normal: 1000, unsupportedData: 1003 } as const;

export class WssConnection {
  readonly #webSocket: WebSocket;
  readonly #options: WssConnectionOptions;
  readonly #peer: Peer;
  /** Messages for which there is no room yet: ws gives out what it has read (64 KiB at most) though it is paused. */
  readonly #waiting: Buffer[] = [];
  /** Calls that are at work, or whose answers the kernel has not taken yet. */
  #outstanding = 0;
  #brokenInARow = 0;
  #finishing = false;
  /** Whether the client has given a sign of life since it was last asked. */
  #heard = true;
  #stall: NodeJS.Timeout | undefined;
  /** Resolves when it is closed. */
  readonly closed: Promise<void>;

  constructor(webSocket: WebSocket, options: WssConnectionOptions) {
    this.#webSocket = webSocket;
    this.#options = options;
    const ended = new AbortController();
    this.#peer = { ...options.peer, ended: ended.signal };
    const { edge, peer } = options;
    const alive = setInterval(() => this.#ask(), edge.stallSeconds * 1000);
    webSocket.on('pong', () => {
      this.#heard = true;
    });
    webSocket.on('message', (data: Buffer, isBinary) => {
      this.#heard = true;
      if (this.#finishing) return;
      if (isBinary) return webSocket.close(CLOSE.unsupportedData, 'a message is text: one JSON value');
      this.#waiting.push(data);
      this.#take();
    });
    webSocket.on('error', (err) => peer.log.debug({ err }, 'connection'));
    this.closed = new Promise((resolve) => {
      webSocket.once('close', () => {
        clearInterval(alive);
        clearTimeout(this.#stall);
        this.#finishing = true;
        ended.abort();
        resolve();
      });
    });
  }

  /** Takes no more messages, answers those taken, and closes. */
  finish(): void {
    this.#finishing = true;
    this.#endIfDone();
  }

  /** Closes at once. */
  destroy(): void {
    this.#webSocket.terminate();
  }

  /** Takes what waits as far as there is room, and reads on only when nothing waits and there is more room. */
  #take(): void {
    const { outstanding } = this.#options.edge;
    while (!this.#finishing && this.#outstanding < outstanding) {
      const data = this.#waiting.shift();
      if (data === undefined) break;
      this.#accept(data);
    }
    if (this.#finishing) this.#waiting.length = 0;
    if (this.#outstanding >= outstanding) this.#webSocket.pause();
    else if (this.#webSocket.isPaused) {
      this.#heard = true; // its pongs have not been read meanwhile
      this.#webSocket.resume();
    }
  }

  #accept(data: Buffer): void {
    const message = parsed(data);
    const calls = message === undefined ? 1 : callsOf(message.value);
    this.#outstanding += calls;
    if (message === undefined) {
      this.#send(parseErrorAnswer(), calls);
      if (++this.#brokenInARow >= this.#options.edge.brokenFrames) this.finish();
      return;
    }
    this.#brokenInARow = 0;
    void this.#options.dispatcher.answer(message.value, this.#peer).then((text) => {
      if (text === undefined) this.#release(calls);
      else this.#send(text, calls);
    });
  }

  /** Sends the answer to so many calls, and releases them when the kernel has taken it. */
  #send(text: string, calls: number): void {
    const { edge, peer } = this.#options;
    const webSocket = this.#webSocket;
    if (webSocket.bufferedAmount > edge.unsentBytes) {
      peer.log.warn(
        { unsentBytes: webSocket.bufferedAmount },
        'a client left its answers unread: disconnected',
      );
      this.destroy();
    }
    if (webSocket.readyState === webSocket.OPEN) {
      this.#stall ??= setTimeout(() => this.#stalled(), edge.stallSeconds * 1000);
    }
    // Called with an error where it has closed: nobody is there to be told.
    webSocket.send(text.trimEnd(), () => {
      if (webSocket.bufferedAmount > 0) this.#stall?.refresh();
      else {
        clearTimeout(this.#stall);
        this.#stall = undefined;
      }
      this.#release(calls);
    });
  }

  #release(calls: number): void {
    this.#outstanding -= calls;
    this.#take();
    this.#endIfDone();
  }

  #stalled(): void {
    this.#options.peer.log.warn('a client does not take its answers: disconnected');
    this.destroy();
  }

  /**
   * One that has lost its network closes nothing: it is asked, and not heard of for so long it is gone. While it is not read, for
   * its many calls, nothing can be heard of it; the kernel then gives up on a question that nobody takes.
   */
  #ask(): void {
    if (!this.#heard && !this.#webSocket.isPaused) {
      this.#options.peer.log.warn('a client does not answer: disconnected');
      this.destroy();
      return;
    }
    this.#heard = false;
    this.#webSocket.ping();
  }

  #endIfDone(): void {
    if (this.#finishing && this.#outstanding === 0) this.#webSocket.close(CLOSE.normal);
  }
}
