/** One message in the body of a POST to `/`. */
import { request } from 'node:https';
import type { ConnectionOptions } from 'node:tls';
import { type Endpoint, MAX_ANSWER, requestText, resultOf, tooLate } from './answer.js';
import { NoAnswer } from './failure.js';

export class HttpsEndpoint implements Endpoint {
  readonly #where: string;
  readonly #options: ConnectionOptions;

  constructor(where: string, options: ConnectionOptions) {
    this.#where = where;
    this.#options = options;
  }

  async call(method: string, params: object, seconds: number): Promise<unknown> {
    const { status, body } = await this.#post(method, requestText(method, params), seconds);
    // Any other status is about the request itself, and its body says in a sentence what is wrong.
    if (status !== 200)
      throw new NoAnswer(`${this.#where} answers with ${status}: ${body.slice(0, 200).trim()}`);
    return resultOf(body, this.#where);
  }

  /** Each call has a connection of its own. */
  close(): void {}

  #post(method: string, text: string, seconds: number): Promise<{ status: number; body: string }> {
    return new Promise((resolve, reject) => {
      const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
      const options = { ...this.#options, host: `${this.#options.host}`, port: this.#options.port };
      const sent = request({ ...options, method: 'POST', path: '/', headers, agent: false } as object);
      const timer = setTimeout(() => sent.destroy(tooLate(method, this.#where, seconds)), seconds * 1000);
      const fail = (error: Error) => {
        clearTimeout(timer);
        const told = new NoAnswer(`Cannot reach ${this.#where}: ${error.message}.`, { cause: error });
        reject(error instanceof NoAnswer ? error : told);
      };
      sent.on('error', fail);
      sent.on('response', (response) => {
        const pieces: Buffer[] = [];
        let length = 0;
        response.on('data', (piece: Buffer) => {
          length += piece.length;
          if (length > MAX_ANSWER) sent.destroy(new Error(`the answer has more than ${MAX_ANSWER} bytes`));
          pieces.push(piece);
        });
        response.on('error', fail);
        response.on('end', () => {
          clearTimeout(timer);
          resolve({ status: response.statusCode ?? 0, body: Buffer.concat(pieces).toString('utf8') });
        });
      });
      sent.end(text);
    });
  }
}
