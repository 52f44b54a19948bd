import type { Socket } from 'node:net';
import { HalfOpen } from './half-open.js';
import type { RefusalLog } from './refusal-log.js';

/** Connections in the middle of their TLS handshake: so many at once, each for so long. */
export class Handshakes {
  readonly #places: HalfOpen;
  readonly #seconds: number;
  readonly #refusals: RefusalLog;
  /** By both ends' addresses, which TLS's own socket has too. */
  readonly #sockets = new Map<string, { socket: Socket; done(): void }>();

  constructor(limits: { handshakes: number; handshakeSeconds: number }, refusals: RefusalLog) {
    this.#places = new HalfOpen(limits.handshakes);
    this.#seconds = limits.handshakeSeconds;
    this.#refusals = refusals;
  }

  /** Takes a place for a connection; another one's, or its own, is ended where there is none. */
  begin(socket: Socket): void {
    const key = keyOf(socket);
    const address = socket.remoteAddress ?? '';
    const stranger = {
      address,
      cut: (reason: string) => {
        this.#refusals.write(reason, { peer: address });
        socket.destroy();
      },
    };
    const timer = setTimeout(
      () => stranger.cut(`it took more than ${this.#seconds} s for the TLS handshake`),
      this.#seconds * 1000,
    );
    const done = () => {
      clearTimeout(timer);
      this.#places.leave(stranger);
      this.#sockets.delete(key);
    };
    this.#sockets.set(key, { socket, done });
    socket.once('close', done);
    this.#places.enter(stranger);
  }

  /** The handshake is over. @param socket TLS's own, or the one that it lies on */
  end(socket: Socket): void {
    this.#sockets.get(keyOf(socket))?.done();
  }

  /** Ends all that are not over. */
  close(): void {
    for (const { socket } of this.#sockets.values()) socket.destroy();
  }
}

function keyOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}
