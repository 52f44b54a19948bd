/** JSON-RPC in the bodies of HTTPS requests: one message or batch a POST. */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Log } from '../log.js';
import { type Dispatcher, type Peer, parseErrorAnswer } from './dispatcher.js';
import type { HttpConnections } from './http-connections.js';
import type { EdgeLimits } from './limits.js';
import { callsOf, parsed } from './message.js';
import type { Admitted } from './network.js';

export interface HttpsOptions {
  readonly dispatcher: Dispatcher;
  readonly frameBytes: number;
  readonly edge: Pick<EdgeLimits, 'stallSeconds'>;
  readonly log: Log;
  readonly connections: HttpConnections;
  /** Undefined: it was refused, and is being ended. */
  callerOf(socket: Socket): Admitted | undefined;
  /** Whether no more messages are taken: the daemon ends. */
  isClosing(): boolean;
}

/**
 * Answers POSTs to `/`. What JSON-RPC has to say is said in the body of a 200, errors too; a message that asks for no
 * answer has a 204. Any other status is about the request itself, and its body says in a sentence what is wrong.
 */
export function serveHttps(server: Server, options: HttpsOptions): void {
  server.on('request', (request, response) => {
    answer(request, response, options).catch((err: unknown) => {
      options.log.debug({ err }, 'a request has ended before its answer');
      response.destroy();
    });
  });
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  { dispatcher, frameBytes, edge, log, connections, callerOf, isClosing }: HttpsOptions,
): Promise<void> {
  const caller = callerOf(request.socket);
  if (caller === undefined || request.socket.destroyed) return void request.socket.destroy();
  const refuse = (status: number, sentence: string) => say(response, status, sentence);
  if (request.url !== '/') return refuse(404, 'JSON-RPC is at /.');
  if (request.method !== 'POST') {
    response.setHeader('allow', 'POST');
    return refuse(405, 'JSON-RPC takes POST alone.');
  }
  if (!/^application\/json\s*(;|$)/i.test(request.headers['content-type'] ?? '')) {
    return refuse(415, 'The content-type is application/json.');
  }
  const stopping = () => refuse(503, 'The daemon is stopping; try again in a moment.');
  if (isClosing()) return stopping();
  const stall = () => setTimeout(() => request.socket.destroy(), edge.stallSeconds * 1000);
  const sending = stall();
  const body = await bodyOf(request, frameBytes).finally(() => clearTimeout(sending));
  if (body === undefined) return refuse(413, `A message has at most ${frameBytes} bytes.`);
  const ended = new AbortController();
  response.once('close', () => ended.abort());
  const peer: Peer = { ...caller, ended: ended.signal, log };
  const message = parsed(body);
  await connections.enter(request, response, message === undefined ? 1 : callsOf(message.value));
  if (ended.signal.aborted || request.socket.destroyed) return;
  if (isClosing()) return stopping();
  const text = message === undefined ? parseErrorAnswer() : await dispatcher.answer(message.value, peer);
  const taking = stall();
  response.once('close', () => clearTimeout(taking));
  if (text === undefined) response.writeHead(204).end();
  else response.writeHead(200, { 'content-type': 'application/json' }).end(text);
}

/** Of an address that WebSockets alone are at. */
export function refuseHttp(server: Server): void {
  server.on('request', (_request, response) => {
    response.setHeader('upgrade', 'websocket');
    say(response, 426, 'JSON-RPC is over WebSockets here.');
  });
}

function say(response: ServerResponse, status: number, sentence: string): void {
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', connection: 'close' });
  response.end(`${sentence}\n`);
}

/** Undefined: it is longer than that. */
async function bodyOf(request: IncomingMessage, limit: number): Promise<Buffer | undefined> {
  if (Number(request.headers['content-length'] ?? 0) > limit) return undefined;
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > limit) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
