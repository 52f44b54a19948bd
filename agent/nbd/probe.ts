import { type Wait, within } from '../host/process-wait.js';
import { type Connection, dial, guarded } from './connection.js';
import { NbdError } from './error.js';
import { abort, greet } from './handshake.js';
import type { NbdAddress } from './uri.js';

/**
 * What a socket answers:
 * - `ready`: an NBD server greets
 * - `silent`: somebody took the connection (or its queue did) but did not greet in time: a server that is full,
 *   hung, or still opening its image
 * - `refused`: nobody listens, or not with NBD
 */
export type ProbeResult = 'ready' | 'silent' | 'refused';

/**
 * Connects, reads the greeting and leaves. The existence of a socket proves nothing: qemu-nbd makes it before it
 * opens the image and leaves it behind when that fails. Never throws for what the server does; the signal's reason
 * where that aborts.
 */
export async function probe(address: NbdAddress, { timeoutMs, signal }: Wait): Promise<ProbeResult> {
  signal?.throwIfAborted();
  let connection: Connection | undefined;
  try {
    await within('The NBD greeting', { timeoutMs, signal }, async (deadline) => {
      const dialled = await dial(address, deadline);
      connection = dialled;
      await guarded(dialled, deadline, () => greet(dialled));
      abort(dialled);
    });
    return 'ready';
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    return error instanceof NbdError ? 'refused' : 'silent';
  } finally {
    connection?.socket.destroySoon(); // after what abort() has sent; at once where it was not reached
  }
}

/** Whether an NBD server serves there: a connection and a greeting have been made. */
export async function isListening(address: NbdAddress, wait: Wait): Promise<boolean> {
  return (await probe(address, wait)) === 'ready';
}
