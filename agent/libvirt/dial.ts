/** Connects to a UNIX socket. */
import { connect, type Socket } from 'node:net';
import { CallTimeoutError } from './errors.js';

/**
 * @param timeoutMs a daemon whose backlog is full does not accept: without a limit that would be waited for.
 * @throws Node's own error (ENOENT, ECONNREFUSED, EACCES), `CallTimeoutError`, or the signal's reason.
 */
export function dial(path: string, timeoutMs: number, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const socket = connect(path);
    const give = (settle: () => void): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
      socket.removeAllListeners();
      settle();
    };
    const fail = (error: unknown): void =>
      give(() => {
        // A late error of a socket that nobody owns any more must not reach the process.
        socket.on('error', () => {});
        socket.destroy();
        reject(error);
      });
    const abort = (): void => fail(signal.reason);
    const timer = setTimeout(
      () => fail(new CallTimeoutError(`connect to ${path}`, timeoutMs, false)),
      timeoutMs,
    );
    signal.addEventListener('abort', abort, { once: true });
    socket.once('connect', () => give(() => resolve(socket)));
    socket.once('error', fail);
  });
}
