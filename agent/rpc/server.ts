/** The edge of the daemon: verbs behind JSON-RPC, behind connections, behind listeners. */
import type { Socket } from 'node:net';
import type { Log } from '../log.js';
import type { Identity, VerbTable } from '../verbs/verb.js';
import { Connection } from './connection.js';
import { createDispatcher } from './dispatcher.js';
import { type EdgeLimits, edgeLimits, type RpcLimits } from './limits.js';
import { VerbRunner } from './run-verb.js';
import { listenUnix, type UnixListener } from './unix.js';

export interface RpcServerOptions {
  readonly verbs: VerbTable;
  readonly limits: RpcLimits;
  readonly log: Log;
  /** Check results against the schemas too, for tests: a fault is an internal error. Default: false. */
  readonly checkResults?: boolean;
  /** Other times and sizes than `edgeLimits`, for tests. */
  readonly edge?: Partial<EdgeLimits>;
}

export interface RpcServer {
  /**
   * Listens on a UNIX socket, mode 0660, with `group` where the host has it.
   * @throws Error that says what is in the way (another daemon, a file that is no socket, a path too long)
   */
  listenUnix(path: string, options: { readonly group: string }): Promise<void>;
  /**
   * Stops listening, takes no more calls, and waits for verbs at work and for their answers to be read, at most
   * `timeoutSeconds`; what is connected then is disconnected. Idempotent.
   * @returns whether all verbs had ended
   */
  close(options?: { readonly timeoutSeconds?: number }): Promise<boolean>;
}

const drainSeconds = 30;

/** Whoever can open the UNIX socket is admin: its group equals root over every disk. */
const unixIdentity: Identity = { kind: 'unix', name: 'unix' };

export function createRpcServer({
  verbs,
  limits,
  log,
  checkResults = false,
  edge: changed,
}: RpcServerOptions): RpcServer {
  const edge = { ...edgeLimits, ...changed };
  const runner = new VerbRunner({ verbs, limits, edge, log, checkResults });
  const dispatcher = createDispatcher(runner, { batch: limits.batch });
  const connections = new Set<Connection>();
  const listeners: UnixListener[] = [];
  let closed: Promise<boolean> | undefined;
  let clientNumber = 0;

  const onSocket = (socket: Socket): void => {
    const peer = { identity: unixIdentity, log: log.child({ client: ++clientNumber }) };
    const connection = new Connection(socket, { dispatcher, peer, frameBytes: limits.frameBytes, edge });
    connections.add(connection);
    socket.on('close', () => connections.delete(connection));
    if (closed !== undefined) connection.finish();
  };

  const close = async (timeoutSeconds: number): Promise<boolean> => {
    const gone = Promise.all(listeners.map((listener) => listener.close()));
    for (const connection of connections) connection.finish();
    const drained = await within(
      timeoutSeconds,
      runner.idle().then(() => gone),
    );
    for (const connection of connections) connection.destroy();
    await gone;
    return drained;
  };

  return {
    async listenUnix(path, { group }) {
      const { lingerSeconds } = edge;
      listeners.push(
        await listenUnix({ path, group, clients: limits.clients, lingerSeconds, log, onSocket }),
      );
    },
    close({ timeoutSeconds = drainSeconds } = {}) {
      closed ??= close(timeoutSeconds);
      return closed;
    },
  };
}

/** Whether `work` was done within so many seconds. */
async function within(seconds: number, work: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), seconds * 1000);
  });
  try {
    return await Promise.race([work.then(() => true), timeout]);
  } finally {
    clearTimeout(timer);
  }
}
