/** What can be set on a client, resolved once into a complete form. */
import type { BackoffOptions } from './backoff.js';
import type { EventName } from './events.js';
import type { KeepAliveOptions } from './keepalive.js';
import { headerBytes, messageMaxBytes } from './message.js';

export interface LibvirtOptions {
  /** What libvirtd opens, and, without `socket`, where it is looked for. Default `qemu:///system`. */
  readonly uri?: string;
  /** The path of libvirtd's UNIX socket, instead of what follows from `uri`. */
  readonly socket?: string;
  /**
   * Time limit of calls that bring none. Default 60 s: libvirt itself waits 30 s for a domain's lock, and its answer to
   * that (`isStateLockTimeout`) says more than a timeout here.
   */
  readonly timeoutMs?: number;
  /** Time limit of each step to a connection: socket, authentication, open, registrations. Default 10 s. */
  readonly connectTimeoutMs?: number;
  /** Connections to libvirtd. More let more slow calls wait there while others pass. Default 3. */
  readonly connections?: number;
  /**
   * Calls at libvirtd at once, a connection; others wait their turn here. Must stay below libvirtd's
   * `max_client_requests` (5 as shipped): at that number it stops reading, and keepalive fails. Default 4.
   */
  readonly callsPerConnection?: number;
  /** Calls at libvirtd at once for one domain, so that a hung QEMU does not take every place. Default 3. */
  readonly callsPerDomain?: number;
  /** The largest message either way, in bytes. Default and most 32 MiB (VIR_NET_MESSAGE_MAX). */
  readonly maxMessageBytes?: number;
  /** Default 5 s and 5, as libvirtd's own: 30 to 35 s of silence and the connection is lost. */
  readonly keepAlive?: KeepAliveOptions;
  /** Waits between attempts to connect. Default 100 ms, doubling to 5 s. */
  readonly backoff?: BackoffOptions;
  /** A call has ended, after so many milliseconds, the wait for its turn included; with `error` where it failed. */
  readonly onCall?: (procedure: string, ms: number, error: unknown) => void;
  /** A listener threw `error`. Default: it becomes the process's uncaught exception. */
  readonly onListenerError?: (error: unknown, event: EventName) => void;
}

/** Complete and checked. */
export type ResolvedOptions = Required<Omit<LibvirtOptions, 'socket'>> & {
  readonly socket: string | undefined;
};

function positiveInteger(name: string, value: number, most = Number.MAX_SAFE_INTEGER): number {
  if (!Number.isSafeInteger(value) || value < 1 || value > most) {
    throw new RangeError(`${name} must be an integer from 1 to ${most}, not ${value}`);
  }
  return value;
}

/** @throws RangeError naming the option that is out of range. */
export function resolveOptions(options: LibvirtOptions): ResolvedOptions {
  const keepAlive = options.keepAlive ?? { intervalMs: 5_000, count: 5 };
  positiveInteger('keepAlive.intervalMs', keepAlive.intervalMs);
  positiveInteger('keepAlive.count', keepAlive.count);
  const backoff = options.backoff ?? { minMs: 100, maxMs: 5_000 };
  positiveInteger('backoff.minMs', backoff.minMs);
  positiveInteger('backoff.maxMs', backoff.maxMs);
  const maxMessageBytes = positiveInteger(
    'maxMessageBytes',
    options.maxMessageBytes ?? messageMaxBytes,
    messageMaxBytes,
  );
  if (maxMessageBytes < headerBytes)
    throw new RangeError(`maxMessageBytes must hold a header, ${headerBytes} bytes`);
  return {
    uri: options.uri ?? 'qemu:///system',
    socket: options.socket,
    timeoutMs: positiveInteger('timeoutMs', options.timeoutMs ?? 60_000),
    connectTimeoutMs: positiveInteger('connectTimeoutMs', options.connectTimeoutMs ?? 10_000),
    connections: positiveInteger('connections', options.connections ?? 3, 100),
    callsPerConnection: positiveInteger('callsPerConnection', options.callsPerConnection ?? 4, 1_000),
    callsPerDomain: positiveInteger('callsPerDomain', options.callsPerDomain ?? 3, 1_000),
    maxMessageBytes,
    keepAlive,
    backoff,
    onCall: options.onCall ?? (() => {}),
    onListenerError:
      options.onListenerError ??
      ((error) => {
        throw error;
      }),
  };
}
