import type { Server } from 'node:https';
import type { Socket } from 'node:net';

/**
 * The connections of an HTTPS server, and what they are at. Node's own deadlines and `closeIdleConnections` know only of
 * connections that the server itself has accepted (lib/_http_server.js sets them up on 'listening'), and these come from
 * a listener before it.
 */
export class HttpConnections {
  /** Requests at work on each, and the end of its idleness. */
  readonly #sockets = new Map<Socket, { busy: number; idle: NodeJS.Timeout }>();
  readonly #idleMs: number;
  #finishing = false;

  /**
   * @param outstanding so many requests may one connection have at work: Node hears those that a client sends without waiting for
   *   answers, however many; with one more it is ended
   * @param idleMs so long may a connection take to begin, to send the head of a request, or to send the next
   */
  constructor(server: Server, { outstanding, idleMs }: { outstanding: number; idleMs: number }) {
    this.#idleMs = idleMs;
    server.keepAliveTimeout = 0;
    server.on('secureConnection', (socket: Socket) => {
      this.#sockets.set(socket, { busy: 0, idle: this.#idleTimer(socket) });
      socket.once('close', () => this.forget(socket));
    });
    server.on('request', ({ socket }, response) => {
      const state = this.#sockets.get(socket);
      if (state === undefined) return;
      clearTimeout(state.idle);
      if (++state.busy > outstanding) return socket.destroy();
      response.once('close', () => {
        if (--state.busy > 0 || !this.#sockets.has(socket)) return;
        if (this.#finishing) socket.destroySoon();
        else state.idle = this.#idleTimer(socket);
      });
    });
  }

  /** A connection that is HTTP's no longer: another sees to its end. */
  forget(socket: Socket): void {
    clearTimeout(this.#sockets.get(socket)?.idle);
    this.#sockets.delete(socket);
  }

  /** Ends those that no request is at work on, and each other when its answer is out. */
  finish(): void {
    this.#finishing = true;
    for (const [socket, { busy }] of this.#sockets) if (busy === 0) socket.destroySoon();
  }

  /** Ends all at once. */
  destroy(): void {
    for (const socket of this.#sockets.keys()) socket.destroy();
  }

  #idleTimer(socket: Socket): NodeJS.Timeout {
    return setTimeout(() => socket.destroy(), this.#idleMs);
  }
}
