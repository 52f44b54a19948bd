/** A JSON-RPC client for tests, which can also send what no client should. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

export interface Answer {
  jsonrpc: string;
  id: string | number | null;
  result?: unknown;
  error?: { code: number; message: string; data?: Record<string, unknown> };
}

/** Long enough for a loaded machine: what a test asserts is that the answer comes, not when. */
const patience = 30_000;

export class LineClient {
  readonly socket: Socket;
  #text = '';
  #id = 0;
  readonly #messages: Array<Answer | Answer[]> = [];
  readonly #waiting: Array<() => void> = [];
  ended = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.#take(text));
    socket.on('error', () => {});
    const end = () => {
      this.ended = true;
      this.#wake();
    };
    socket.on('end', () => {
      socket.end();
      end();
    });
    socket.on('close', end);
  }

  static async connect(path: string): Promise<LineClient> {
    const socket = connect({ path, allowHalfOpen: true });
    await once(socket, 'connect');
    return new LineClient(socket);
  }

  /** On a connection that is there already. */
  static over(socket: Socket): LineClient {
    return new LineClient(socket);
  }

  send(text: string | Buffer): void {
    this.socket.write(text);
  }

  sendMessage(message: unknown): void {
    this.send(`${JSON.stringify(message)}\n`);
  }

  /** The next message that fits; others stay for later. Fails if the connection ends first. */
  async next(fits: (message: Answer | Answer[]) => boolean = () => true): Promise<Answer | Answer[]> {
    const deadline = Date.now() + patience;
    for (;;) {
      const index = this.#messages.findIndex(fits);
      if (index !== -1) return this.#messages.splice(index, 1)[0] as Answer | Answer[];
      if (this.ended) throw new Error('the connection ended without the message');
      await this.#wait(deadline);
    }
  }

  /** The next message, which is not a batch's. */
  async nextAnswer(): Promise<Answer> {
    return (await this.next((message) => !Array.isArray(message))) as Answer;
  }

  async call(method: string, params?: unknown): Promise<Answer> {
    const id = `call-${++this.#id}`;
    this.sendMessage({ jsonrpc: '2.0', id, method, params });
    return (await this.next((message) => !Array.isArray(message) && message.id === id)) as Answer;
  }

  /** Everything that came until the server ended the connection. */
  async untilEnd(): Promise<Array<Answer | Answer[]>> {
    const deadline = Date.now() + patience;
    while (!this.ended) await this.#wait(deadline);
    return this.#messages.splice(0);
  }

  destroy(): void {
    this.socket.destroy();
  }

  #take(text: string): void {
    this.#text += text;
    const lines = this.#text.split('\n');
    this.#text = lines.pop() ?? '';
    for (const line of lines) this.#messages.push(JSON.parse(line) as Answer | Answer[]);
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async #wait(deadline: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('nothing came in time')), deadline - Date.now());
      this.#waiting.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}
