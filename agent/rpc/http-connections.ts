import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Server } from 'node:https';
import type { Socket } from 'node:net';

interface State {
  /** Requests whose answers are not out yet. */
  requests: number;
  /** The calls of those of them that are at work. */
  calls: number;
  /** The end of its idleness. */
  idle: NodeJS.Timeout;
  /** Requests that wait for room, first come first. */
  readonly waiting: (() => void)[];
}

/**
 * The connections of an HTTPS server, and what they are at. Node's own deadlines and `closeIdleConnections` know only of
 * connections that the server itself has accepted (lib/_http_server.js sets them up on 'listening'), and these come from
 * a listener before it.
 */
export class HttpConnections {
  readonly #sockets = new Map<Socket, State>();
  readonly #outstanding: number;
  readonly #idleMs: number;
  #finishing = false;

  /**
   * @param outstanding so many calls may one connection have at work, or with their answers unread: the next request waits. Node
   *   hears those that a client sends without waiting for answers, however many; with more requests than that it is ended
   * @param idleMs so long may a connection take to begin, to send the head of a request, or to send the next
   */
  constructor(server: Server, { outstanding, idleMs }: { outstanding: number; idleMs: number }) {
    this.#outstanding = outstanding;
    this.#idleMs = idleMs;
    server.keepAliveTimeout = 0;
    server.on('secureConnection', (socket: Socket) => {
      this.#sockets.set(socket, { requests: 0, calls: 0, idle: this.#idleTimer(socket), waiting: [] });
      socket.once('close', () => this.forget(socket));
    });
    server.on('request', ({ socket }, response) => {
      const state = this.#sockets.get(socket);
      if (state === undefined) return;
      clearTimeout(state.idle);
      if (++state.requests > outstanding) return socket.destroy();
      response.once('close', () => {
        if (--state.requests > 0 || !this.#sockets.has(socket)) return;
        if (this.#finishing) socket.destroySoon();
        else state.idle = this.#idleTimer(socket);
      });
    });
  }

  /**
   * Takes room for the calls of a request until its answer is out, as a line or a WebSocket does: a batch is let in whole where there
   * is any room. Resolves when there is some, or when the connection has closed.
   */
  async enter({ socket }: IncomingMessage, response: ServerResponse, calls: number): Promise<void> {
    const state = this.#sockets.get(socket);
    if (state === undefined || response.closed) return;
    await new Promise<void>((resolve) => {
      const begin = () => {
        state.calls += calls;
        response.once('close', () => {
          state.calls -= calls;
          this.#letIn(state);
        });
        resolve();
      };
      state.waiting.push(begin);
      this.#letIn(state);
    });
  }

  #letIn(state: State): void {
    while (state.calls < this.#outstanding && state.waiting.length > 0) state.waiting.shift()?.();
  }

  /** A connection that is HTTP's no longer: another sees to its end. */
  forget(socket: Socket): void {
    const state = this.#sockets.get(socket);
    if (state === undefined) return;
    clearTimeout(state.idle);
    this.#sockets.delete(socket);
    for (const begin of state.waiting.splice(0)) begin();
  }

  /** Ends those that no request is at work on, and each other when its answer is out. */
  finish(): void {
    this.#finishing = true;
    for (const [socket, { requests }] of this.#sockets) if (requests === 0) socket.destroySoon();
  }

  /** Ends all at once. */
  destroy(): void {
    for (const socket of this.#sockets.keys()) socket.destroy();
  }

  #idleTimer(socket: Socket): NodeJS.Timeout {
    return setTimeout(() => socket.destroy(), this.#idleMs);
  }
}
