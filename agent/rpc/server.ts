/** The edge of the daemon: verbs behind JSON-RPC, behind connections, behind listeners. */

import type { Server as HttpsServer } from 'node:https';
import type { Socket } from 'node:net';
import { unixIdentity } from '../access/identity.js';
import type { Log } from '../log.js';
import type { VerbTable } from '../verbs/verb.js';
import { Connection } from './connection.js';
import { createDispatcher } from './dispatcher.js';
import { HttpConnections } from './http-connections.js';
import { refuseHttp, serveHttps } from './https.js';
import { type EdgeLimits, edgeLimits, type RpcLimits } from './limits.js';
import {
  type Admitted,
  type Framing,
  listenNetwork,
  type NetworkListeners,
  type NetworkOptions,
} from './network.js';
import { type Authorize, type Observe, VerbRunner } from './run-verb.js';
import { listenUnix, type UnixListener, type UnixListenerOptions } from './unix.js';
import { serveWss } from './wss.js';
import type { WssConnection } from './wss-connection.js';

export interface RpcServerOptions {
  readonly verbs: VerbTable;
  readonly limits: RpcLimits;
  readonly log: Log;
  /** Whether the host does not agree with the records yet: most verbs are refused then. Default: it does. */
  readonly recovering?: () => boolean;
  /** Who may do what. Default: everybody everything, as on the UNIX socket. */
  readonly authorize?: Authorize;
  /** Is told of each call that has been answered, for metrics. */
  readonly observe?: Observe;
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
  listenUnix(path: string, options: Pick<UnixListenerOptions, 'group' | 'fd'>): Promise<void>;
  /**
   * Listens on the network: TLS with a client certificate, whose identities say who calls.
   * @throws Error that says what is in the way (an address that is taken, a file that cannot be read)
   */
  listenNetwork(
    options: Pick<NetworkOptions, 'addresses' | 'certificates' | 'identify' | 'inherited'>,
  ): Promise<NetworkListeners>;
  /**
   * Stops listening, takes no more calls, and waits for verbs at work and for their answers to be read, at most
   * `timeoutSeconds`; what is connected then is disconnected. Idempotent.
   * @returns whether all verbs had ended
   */
  close(options?: { readonly timeoutSeconds?: number }): Promise<boolean>;
}

const drainSeconds = 30;

export function createRpcServer({
  verbs,
  limits,
  log,
  recovering = () => false,
  authorize = async () => {},
  observe = () => {},
  checkResults = false,
  edge: changed,
}: RpcServerOptions): RpcServer {
  const edge = { ...edgeLimits, ...changed };
  const runner = new VerbRunner({ verbs, limits, edge, log, recovering, authorize, checkResults, observe });
  const dispatcher = createDispatcher(runner, { batch: limits.batch });
  const connections = new Set<Connection>();
  const webSockets = new Set<WssConnection>();
  const https = new Set<HttpConnections>();
  const listeners: (UnixListener | NetworkListeners)[] = [];
  const networks: NetworkListeners[] = [];
  let closed: Promise<boolean> | undefined;
  let clientNumber = 0;
  const logOf = (): Log => log.child({ client: ++clientNumber });

  const onSocket = (socket: Socket, { identity, refusal }: Admitted): void => {
    const ended = new AbortController();
    const peer = {
      identity,
      ended: ended.signal,
      log: logOf(),
      refusal,
    };
    const connection = new Connection(socket, { dispatcher, peer, frameBytes: limits.frameBytes, edge });
    connections.add(connection);
    socket.on('end', () => ended.abort());
    socket.on('close', () => {
      ended.abort();
      connections.delete(connection);
    });
    if (closed !== undefined) connection.finish();
  };

  const onHttps = (
    server: HttpsServer,
    framings: ReadonlySet<Framing>,
    callerOf: (socket: Socket) => Admitted | undefined,
  ): void => {
    const common = { dispatcher, frameBytes: limits.frameBytes, edge, callerOf };
    const http = new HttpConnections(server, {
      outstanding: edge.outstanding,
      idleMs: edge.stallSeconds * 1000,
    });
    https.add(http);
    if (framings.has('https'))
      serveHttps(server, { ...common, log, connections: http, isClosing: () => closed !== undefined });
    else refuseHttp(server);
    if (!framings.has('wss')) return;
    serveWss(server, {
      ...common,
      logOf,
      onUpgrade: (socket) => http.forget(socket),
      onOpen(connection) {
        webSockets.add(connection);
        void connection.closed.then(() => webSockets.delete(connection));
        if (closed !== undefined) connection.finish();
      },
    });
  };

  const close = async (timeoutSeconds: number): Promise<boolean> => {
    const gone = Promise.all(listeners.map((listener) => listener.close()));
    for (const connection of [...connections, ...webSockets, ...https]) connection.finish();
    const drained = await within(
      timeoutSeconds,
      runner.idle().then(() => gone),
    );
    for (const connection of [...connections, ...webSockets, ...https]) connection.destroy();
    // Whatever has come of it since, nothing that was accepted is waited for any longer.
    for (const { destroy } of networks) destroy();
    await gone;
    return drained;
  };

  return {
    async listenUnix(path, { group, fd }) {
      listeners.push(
        await listenUnix({
          path,
          group,
          fd,
          clients: limits.clients,
          edge,
          log,
          onSocket: (socket, refusal) => onSocket(socket, { identity: unixIdentity, refusal }),
        }),
      );
    },
    async listenNetwork(options) {
      const listener = await listenNetwork({
        ...options,
        clients: limits.clients,
        clientsPerIdentity: limits.clientsPerIdentity,
        edge,
        log,
        onSocket,
        onHttps,
      });
      listeners.push(listener);
      networks.push(listener);
      return listener;
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
