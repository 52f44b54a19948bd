/** JSON-RPC over WebSockets: a text message is one JSON value, both ways; answers come in any order. */
import type { Server } from 'node:https';
import type { Socket } from 'node:net';
import { WebSocketServer } from 'ws';
import type { Log } from '../log.js';
import type { Dispatcher } from './dispatcher.js';
import type { Admitted } from './network.js';
import { WssConnection, type WssConnectionOptions } from './wss-connection.js';

export interface WssOptions {
  readonly dispatcher: Dispatcher;
  readonly frameBytes: number;
  readonly edge: WssConnectionOptions['edge'];
  /** Undefined: it was refused, and is being ended. */
  callerOf(socket: Socket): Admitted | undefined;
  /** What is said of a new caller in the log. */
  logOf(): Log;
  /** A connection is HTTP's no longer. */
  onUpgrade(socket: Socket): void;
  /** A connection, until it has closed. */
  onOpen(connection: WssConnection): void;
}

/** Takes upgrades at `/`; the connections are no longer HTTP's then. */
export function serveWss(server: Server, options: WssOptions): void {
  const { dispatcher, edge } = options;
  const sockets = new WebSocketServer({ noServer: true, path: '/', maxPayload: options.frameBytes });
  server.on('upgrade', (request, socket, head) => {
    const caller = options.callerOf(request.socket);
    options.onUpgrade(request.socket);
    if (caller === undefined) return void socket.destroy();
    // What is no upgrade to WebSockets is told so; that it takes that answer is not waited for without end.
    const stall = setTimeout(() => socket.destroy(), edge.stallSeconds * 1000);
    socket.once('close', () => clearTimeout(stall));
    sockets.handleUpgrade(request, socket, head, (webSocket) => {
      clearTimeout(stall);
      const peer = { ...caller, log: options.logOf() };
      options.onOpen(new WssConnection(webSocket, { dispatcher, peer, edge }));
    });
  });
}
