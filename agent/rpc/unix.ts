/** The UNIX socket that callers reach the daemon by. */
import { chown, lstat, mkdir, readFile, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import type { AgentError } from '../errors.js';
import { listenOnDescriptor } from '../host/inherited-sockets.js';
import type { Log } from '../log.js';
import type { EdgeLimits } from './limits.js';
import { tooManyClients } from './places.js';

/** sizeof(sun_path) less its terminating zero, unix(7). */
const maxPathBytes = 107;

/** How long a daemon that listens on the socket already has to take a connection. */
const probeMilliseconds = 2000;

export interface UnixListenerOptions {
  readonly path: string;
  /** May use the socket, besides root. Where there is no such group, root alone. */
  readonly group: string;
  /** The socket where systemd has opened it, with the mode and group of its unit. */
  readonly fd?: number | undefined;
  readonly clients: number;
  readonly edge: Pick<EdgeLimits, 'guests' | 'guestSeconds'>;
  readonly log: Log;
  /**
   * Takes a connection, and its end.
   * @param refusal what all verbs but those that are always admitted are answered with here; undefined: none
   */
  onSocket(socket: Socket, refusal: AgentError | undefined): void;
}

/** Stops listening and removes the socket file; connections are the caller's to end. Idempotent. */
export interface UnixListener {
  close(): Promise<void>;
}

/**
 * Listens on `path`, mode 0660 from its first moment on. A socket file that nobody listens on is replaced.
 * @throws Error whose message says what is in the way
 */
export async function listenUnix(options: UnixListenerOptions): Promise<UnixListener> {
  const { path, group, fd, log } = options;
  if (Buffer.byteLength(path) > maxPathBytes) {
    throw new Error(`${path}: longer than the ${maxPathBytes} bytes that the path of a UNIX socket may have`);
  }
  const server = createServer({ allowHalfOpen: true });
  admit(server, options);
  if (fd === undefined) await listenOnPath(server, path, group, log);
  else {
    await listenOnDescriptor(server, fd, path);
    server.on('error', () => {});
    log.info({ socket: path }, 'listening on the socket of systemd');
  }

  let closed: Promise<void> | undefined;
  return {
    close() {
      // Node resolves this when the last connection has ended; the socket file is gone at once, unless it is systemd's.
      closed ??= new Promise((resolve) => server.close(() => resolve()));
      return closed;
    },
  };
}

async function listenOnPath(server: Server, path: string, group: string, log: Log): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await removeStale(path);
  await listen(server, path);
  const gid = await groupId(group);
  if (gid === undefined) log.warn({ group }, 'there is no such group: only root can use the socket');
  else await chown(path, process.geteuid?.() ?? 0, gid);
  log.info({ socket: path, group: gid === undefined ? undefined : group }, 'listening');
}

/**
 * Takes connections up to the limit. A few more are guests for some seconds: whoever asks then what this host is, and why it
 * takes no more, has an answer; all else is refused by name.
 */
function admit(server: Server, { clients, edge, log, onSocket }: UnixListenerOptions): void {
  let connected = 0;
  server.maxConnections = clients + edge.guests;
  server.on('connection', (socket) => {
    if (connected < clients) {
      connected++;
      socket.on('close', () => connected--);
      return onSocket(socket, undefined);
    }
    log.warn({ clients }, 'the limit of connections is reached: a client gets getHostInfo alone');
    const stay = setTimeout(() => socket.destroy(), edge.guestSeconds * 1000);
    socket.on('close', () => clearTimeout(stay));
    onSocket(socket, tooManyClients(clients));
  });
}

/** The umask, and not a chmod afterwards: between bind and chmod anybody could have connected. */
async function listen(server: Server, path: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    const umask = process.umask(0o117);
    try {
      // Node binds a path before listen() returns.
      server.listen(path, () => {
        server.off('error', reject);
        resolve();
      });
    } finally {
      process.umask(umask);
    }
  });
  server.on('error', () => {});
}

async function removeStale(path: string): Promise<void> {
  const stat = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (stat === undefined) return;
  if (!stat.isSocket()) throw new Error(`${path}: something that is not a socket is in the way; remove it`);
  if (await isListenedOn(path)) throw new Error(`${path}: another daemon listens here; stop it first`);
  await rm(path, { force: true });
}

/** Whether a daemon has the socket open. One that is too busy to answer counts. */
async function isListenedOn(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const probe = connect(path);
    const timeout = setTimeout(() => {
      probe.destroy();
      resolve(true);
    }, probeMilliseconds);
    probe.on('connect', () => {
      clearTimeout(timeout);
      probe.destroy();
      resolve(true);
    });
    probe.on('error', (error: NodeJS.ErrnoException) => {
      clearTimeout(timeout);
      if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') resolve(false);
      else if (error.code === 'EAGAIN') resolve(true);
      else reject(error);
    });
  });
}

/** The number of a group of this host; group(5). */
async function groupId(name: string): Promise<number | undefined> {
  const groups = await readFile('/etc/group', 'utf8');
  for (const line of groups.split('\n')) {
    const [group, , gid] = line.split(':');
    if (group === name && gid !== undefined) return Number(gid);
  }
  return undefined;
}
