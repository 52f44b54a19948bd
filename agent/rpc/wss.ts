/** JSON-RPC over WebSockets: a text message is one JSON value, both ways; answers come in any order. */
import type { Server } from 'node:https';
import type { Socket } from 'node:net';
import { type WebSocket, WebSocketServer } from 'ws';
import type { Identity } from '../access/identity.js';
import type { Log } from '../log.js';
import { type Dispatcher, type Peer, parseErrorAnswer } from './dispatcher.js';
import type { EdgeLimits } from './limits.js';

export interface WssOptions {
  readonly dispatcher: Dispatcher;
  readonly frameBytes: number;
  readonly edge: Pick<EdgeLimits, 'outstanding' | 'unsentBytes' | 'stallSeconds' | 'brokenFrames'>;
  /** Undefined: it was refused, and is being ended. */
  identityOf(socket: Socket): Identity | undefined;
  /** What is said of a new caller in the log. */
  logOf(identity: Identity): Log;
  /** A connection is HTTP's no longer. */
  onUpgrade(socket: Socket): void;
  /** A connection, until it has closed. */
  onOpen(connection: WssConnection): void;
}

export interface WssConnection {
  /** Takes no more messages, answers those taken, and closes. */
  finish(): void;
  destroy(): void;
  /** Resolves when it is closed. */
  readonly closed: Promise<void>;
}

/** RFC 6455, section 7.4.1. */
const CLOSE = { normal: 1000, unsupportedData: 1003 } as const;

/** Takes upgrades at `/`; the connections are no longer HTTP's then. */
export function serveWss(server: Server, options: WssOptions): void {
  const sockets = new WebSocketServer({ noServer: true, path: '/', maxPayload: options.frameBytes });
  server.on('upgrade', (request, socket, head) => {
    const identity = options.identityOf(request.socket);
    options.onUpgrade(request.socket);
    if (identity === undefined) return void socket.destroy();
    // What is no upgrade to WebSockets is told so; that it takes that answer is not waited for without end.
    const stall = setTimeout(() => socket.destroy(), options.edge.stallSeconds * 1000);
    socket.once('close', () => clearTimeout(stall));
    sockets.handleUpgrade(request, socket, head, (webSocket) => {
      clearTimeout(stall);
      options.onOpen(converse(webSocket, identity, options));
    });
  });
}

function converse(
  webSocket: WebSocket,
  identity: Identity,
  { dispatcher, edge, logOf }: WssOptions,
): WssConnection {
  const ended = new AbortController();
  const log = logOf(identity);
  const peer: Peer = { identity, ended: ended.signal, log, refusal: undefined };
  let outstanding = 0;
  let broken = 0;
  let finishing = false;
  let heard = true;

  const endIfDone = () => {
    if (finishing && outstanding === 0) webSocket.close(CLOSE.normal);
  };
  const send = (text: string): Promise<void> =>
    new Promise((resolve) => {
      if (webSocket.bufferedAmount > edge.unsentBytes) {
        log.warn({ unsentBytes: webSocket.bufferedAmount }, 'a client left its answers unread: disconnected');
        webSocket.terminate();
      }
      webSocket.send(text, () => resolve()); // with an error where it has closed: nobody is there to be told
    });
  const take = async (data: Buffer): Promise<void> => {
    outstanding++;
    if (outstanding >= edge.outstanding) webSocket.pause();
    let message: unknown;
    let text: string | undefined;
    try {
      message = JSON.parse(data.toString('utf8'));
      broken = 0;
      text = await dispatcher.answer(message, peer);
    } catch {
      text = parseErrorAnswer();
      if (++broken >= edge.brokenFrames) finishing = true;
    }
    if (text !== undefined) await send(text.trimEnd());
    outstanding--;
    if (webSocket.isPaused) webSocket.resume();
    endIfDone();
  };
  // One that has lost its network closes nothing: it is asked, and not heard of for so long it is gone.
  const alive = setInterval(() => {
    if (!heard) {
      log.warn('a client does not answer: disconnected');
      return webSocket.terminate();
    }
    heard = false;
    webSocket.ping();
  }, edge.stallSeconds * 1000);
  webSocket.on('pong', () => {
    heard = true;
  });
  webSocket.on('message', (data: Buffer, isBinary) => {
    heard = true;
    if (finishing) return;
    if (isBinary) return webSocket.close(CLOSE.unsupportedData, 'a message is text: one JSON value');
    void take(data);
  });
  webSocket.on('error', (err) => log.debug({ err }, 'connection'));
  const closed = new Promise<void>((resolve) => {
    webSocket.once('close', () => {
      clearInterval(alive);
      finishing = true;
      ended.abort();
      resolve();
    });
  });
  return {
    finish() {
      finishing = true;
      endIfDone();
    },
    destroy: () => webSocket.terminate(),
    closed,
  };
}
