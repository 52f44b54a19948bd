/** One JSON value and a newline a message, over a UNIX socket or TLS. */
import type { Socket } from 'node:net';
import { FrameReader } from '../rpc/framing.js';
import { type Endpoint, MAX_ANSWER, requestText, resultOf, tooLate } from './answer.js';
import { NoAnswer } from './failure.js';

export class LineEndpoint implements Endpoint {
  readonly #where: string;
  readonly #open: () => Socket;
  readonly #opened: 'connect' | 'secureConnect';
  #socket: Socket | undefined;

  /** @param where what messages call it */
  constructor(where: string, open: () => Socket, opened: 'connect' | 'secureConnect' = 'connect') {
    this.#where = where;
    this.#open = open;
    this.#opened = opened;
  }

  async call(method: string, params: object, seconds: number): Promise<unknown> {
    let isConnected = this.#socket !== undefined;
    const socket = this.#socket ?? this.#open();
    this.#socket = socket;
    const frames = new FrameReader(MAX_ANSWER);
    let timer: NodeJS.Timeout | undefined;
    try {
      const line = await new Promise<Buffer>((resolve, reject) => {
        timer = setTimeout(() => reject(tooLate(method, this.#where, seconds)), seconds * 1000);
        const gone = (why: string, cause?: unknown) => {
          const what = isConnected
            ? `The connection to ${this.#where} was lost`
            : `Cannot reach ${this.#where}`;
          reject(new NoAnswer(`${what}: ${why}.${isConnected ? '' : hint(cause)}`, { cause }));
        };
        socket.once(this.#opened, () => {
          isConnected = true;
        });
        socket.once('error', (error) => gone(error.message, error));
        socket.once('close', () => gone('the daemon has closed it'));
        socket.on('data', (chunk: Buffer) => {
          try {
            for (const frame of frames.push(chunk)) resolve(frame);
          } catch (error) {
            gone((error as Error).message, error);
          }
        });
        socket.write(`${requestText(method, params)}\n`);
      });
      return resultOf(line.toString('utf8'), this.#where);
    } catch (error) {
      if (error instanceof NoAnswer) this.close();
      throw error;
    } finally {
      clearTimeout(timer);
      socket.removeAllListeners().on('error', () => {});
    }
  }

  close(): void {
    this.#socket?.destroy();
    this.#socket = undefined;
  }
}

/** What to do about the usual reasons. */
function hint(error: unknown): string {
  switch ((error as NodeJS.ErrnoException | undefined)?.code) {
    case 'ENOENT':
    case 'ECONNREFUSED':
      return ' Is vmdiskd running there? --host names another place.';
    case 'EACCES':
      return ' Only root and the group of [rpc] group may use it.';
    default:
      return '';
  }
}
