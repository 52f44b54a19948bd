/** Where Prometheus, or curl, reads the numbers: HTTP on a UNIX socket or on loopback. */
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTcpServer, type Server, type Socket } from 'node:net';
import type { Registry } from 'prom-client';
import { type InheritedSockets, listenOnDescriptor, noInheritedSockets } from '../host/inherited-sockets.js';
import type { Log } from '../log.js';
import { listenUnix } from '../rpc/unix.js';
import { parseListen } from '../tls/addresses.js';
import type { Gauges } from './gauges.js';

/** Connections at once: a scraper or two, and whoever looks what is wrong. */
const CLIENTS = 16;
/** Milliseconds that a client has for its request. */
const REQUEST_MS = 10_000;

/** FileDescriptorName= of the socket that systemd opens for it. */
export const METRICS_SOCKET = 'metrics';

export interface MetricsAddress {
  readonly at: string;
  readonly group: string;
  /** Default: none. */
  readonly inherited?: InheritedSockets;
}

export interface MetricsListener {
  /** Stops listening and ends all connections. Idempotent. */
  close(): Promise<void>;
}

/**
 * Answers `GET /metrics` in Prometheus' text format.
 * @param where `at` is a path, an address with a port, or empty: nothing is listened on then
 * @throws Error that says what is in the way
 */
export async function listenMetrics(
  { at, group, inherited = noInheritedSockets }: MetricsAddress,
  registry: Registry,
  gauges: Gauges,
  log: Log,
): Promise<MetricsListener> {
  if (at === '') return { close: async () => {} };
  const fd = inherited.take(METRICS_SOCKET);
  const http = createHttpServer({ requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS });
  http.on('request', (request, response) => {
    answer(request, response, registry, gauges).catch((err: unknown) => {
      log.error({ err }, 'metrics could not be told');
      response.destroy();
    });
  });
  http.on('clientError', (_error, socket) => socket.destroy());
  // Documented for connections that were accepted elsewhere: http.Server, event 'connection'.
  const onSocket = (socket: Socket) => void http.emit('connection', socket);
  const listener = at.startsWith('/')
    ? await listenUnix({
        ...{ path: at, group, fd, clients: CLIENTS, log },
        edge: { guests: 0, guestSeconds: 0 },
        onSocket,
      })
    : closing(await listenTcp(at, fd, onSocket, log));
  return {
    async close() {
      const closed = listener.close();
      http.closeAllConnections();
      await closed;
    },
  };
}

async function answer(
  { method, url }: IncomingMessage,
  response: ServerResponse,
  registry: Registry,
  gauges: Gauges,
): Promise<void> {
  const path = (url ?? '').split('?')[0];
  if (path !== '/metrics' || method !== 'GET') {
    const status = path === '/metrics' ? 405 : 404;
    response.writeHead(status, { 'content-type': 'text/plain', connection: 'close', allow: 'GET' });
    response.end('The numbers are at GET /metrics.\n');
    return;
  }
  await gauges.look();
  const text = await registry.metrics();
  response.writeHead(200, { 'content-type': registry.contentType, connection: 'close' }).end(text);
}

async function listenTcp(
  at: string,
  fd: number | undefined,
  onSocket: (socket: Socket) => void,
  log: Log,
): Promise<Server> {
  const server = createTcpServer(onSocket);
  server.maxConnections = CLIENTS;
  if (fd !== undefined) await listenOnDescriptor(server, fd, parseListen(at).port);
  else
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause) =>
        reject(new Error(`cannot listen on ${at} for metrics: ${cause.message}`, { cause })),
      );
      server.listen(parseListen(at), resolve);
    });
  server.removeAllListeners('error').on('error', () => {});
  log.info({ address: at }, 'listening for metrics');
  return server;
}

function closing(server: Server): MetricsListener {
  let closed: Promise<void> | undefined;
  return {
    close() {
      closed ??= new Promise((resolve) => server.close(() => resolve()));
      return closed;
    },
  };
}
