import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { stringify } from 'smol-toml';
import type { Host, Spawned } from './host.js';
import { poll } from './poll.js';
import type { Secrets } from './secrets.js';

const READY_DEADLINE_MS = 60_000;
const CALL_DEADLINE_MS = 120_000;
const ROOT = new URL('../../', import.meta.url).pathname;
const DAEMON = join(ROOT, 'dist/daemon.js');
const GATEWAY = join(ROOT, 'dist/gateway.js');

/** Sections and keys of vmdiskd.toml. */
export type DaemonConfig = Record<string, unknown>;

/** An error that the daemon answered with. */
export class RpcFailure extends Error {
  override readonly name = 'RpcFailure';
  constructor(
    readonly method: string,
    readonly code: number,
    message: string,
    /** `error.data` of the answer. */
    readonly data: Record<string, unknown>,
  ) {
    super(message);
  }
}

/** One connection to the daemon's socket: one JSON value and a newline a message, answers in any order. */
export interface RpcConnection {
  call<Result = unknown>(method: string, params?: object, options?: { timeoutMs?: number }): Promise<Result>;
  /** The socket itself, for tests that send what no client would. */
  readonly socket: Socket;
  close(): void;
}

/** A running daemon under test. */
export interface DaemonHandle extends RpcConnection {
  /** Its pid inside the host. */
  readonly pid: number;
  readonly process: Spawned;
  /** Everything that it has logged so far. */
  log(): string;
  /** Signals it and returns when it is gone (its exports are processes of their own and stay). */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** A further connection. */
  connect(): Promise<RpcConnection>;
}

export interface LaunchOptions {
  /** Return only when verbs are answered (default), and not already when the socket is. */
  awaitRecovery?: boolean;
  /** False: what opens images cannot be confined on this host, and the test is about that. */
  confined?: boolean;
  /** Further arguments of node. */
  nodeArgs?: readonly string[];
  env?: Record<string, string>;
}

/** Starts `node dist/daemon.js` inside the host. Call through `Host.startDaemon`. */
export async function launchDaemon(
  host: Host,
  file: string,
  config: DaemonConfig,
  { awaitRecovery = true, confined = true, nodeArgs = [], env }: LaunchOptions = {},
): Promise<DaemonHandle> {
  requireFreshBuild();
  writeFileSync(file, stringify(config));
  const args = ['--enable-source-maps', ...nodeArgs, DAEMON, '--config', file];
  const daemon = await host.spawn(process.execPath, args, env === undefined ? {} : { env });
  host.wrote('the daemon', daemon.output);
  let ended = false;
  void daemon.exited.then(() => {
    ended = true;
  });
  const connection = await untilConnected(host, () => ended, daemon);
  // Everything would work all the same, and what opens images would not be what the tests are to try.
  if (confined && daemon.output().includes('cannot be confined')) throw new Error(daemon.output());
  if (awaitRecovery) await untilRecovered(connection);
  return {
    ...connection,
    pid: daemon.pid,
    process: daemon,
    log: daemon.output,
    connect: () => openConnection(host.daemonSocket, host.secrets),
    kill: async (signal = 'SIGTERM') => {
      await daemon.kill(signal);
      await poll(`the daemon to end after ${signal}`, READY_DEADLINE_MS, () => ended);
      connection.close();
    },
  };
}

/** A running gateway under test. */
export interface GatewayHandle {
  /** What starts it, for a shell. */
  readonly command: string;
  /** Everything that it has logged so far. */
  log(): string;
  /** Signals it and returns when it is gone. */
  kill(signal?: NodeJS.Signals): Promise<void>;
}

/** Starts `node dist/gateway.js` inside the host; returns when it listens. Call through `Host.startGateway`. */
export async function launchGateway(host: Host, file: string, config: DaemonConfig): Promise<GatewayHandle> {
  requireFreshBuild();
  writeFileSync(file, stringify(config));
  const args = ['--enable-source-maps', GATEWAY, '--config', file];
  const gateway = await host.spawn(process.execPath, args);
  host.wrote('the gateway', gateway.output);
  let ended = false;
  void gateway.exited.then(() => {
    ended = true;
  });
  await poll('the gateway to listen', READY_DEADLINE_MS, () => {
    if (ended) throw new Error(`The gateway ended at its start:\n${gateway.output()}`);
    return gateway.output().includes('"msg":"ready"');
  });
  return {
    command: [process.execPath, ...args].join(' '),
    log: gateway.output,
    kill: async (signal = 'SIGTERM') => {
      await gateway.kill(signal);
      await poll(`the gateway to end after ${signal}`, READY_DEADLINE_MS, () => ended);
    },
  };
}

/** While it recovers it answers getHostInfo alone. */
export async function untilRecovered(connection: RpcConnection): Promise<void> {
  await poll('the daemon to have recovered', READY_DEADLINE_MS, async () => {
    const { state } = await connection.call<{ state: string }>('getHostInfo');
    return state === 'ready';
  });
}

/** A daemon older than its sources has misled people before. */
function requireFreshBuild(): void {
  if (!existsSync(DAEMON)) throw new Error('dist/daemon.js is missing: npm run build');
  const built = statSync(DAEMON).mtimeMs;
  for (const name of readdirSync(join(ROOT, 'agent'), { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.ts') || statSync(join(ROOT, 'agent', name)).mtimeMs <= built) continue;
    const compiled = join(ROOT, 'dist', name.replace(/\.ts$/, '.js'));
    if (existsSync(compiled) && statSync(compiled).mtimeMs >= statSync(join(ROOT, 'agent', name)).mtimeMs)
      continue;
    throw new Error(`agent/${name} is newer than dist/: npm run build`);
  }
}

async function untilConnected(host: Host, ended: () => boolean, daemon: Spawned): Promise<RpcConnection> {
  let connection: RpcConnection | undefined;
  await poll('the daemon to listen', READY_DEADLINE_MS, async () => {
    if (ended()) throw new Error(`The daemon ended at its start:\n${daemon.output()}`);
    connection = await openConnection(host.daemonSocket, host.secrets).catch(() => undefined);
    return connection !== undefined;
  });
  if (connection === undefined) throw new Error('unreachable');
  return connection;
}

interface Answer {
  id?: unknown;
  result?: unknown;
  error?: { code: number; message: string; data?: Record<string, unknown> };
}

/** Connects to a JSON-RPC socket by its outside path; `secrets` hears what is answered. */
export async function openConnection(path: string, secrets: Secrets): Promise<RpcConnection> {
  const socket = await new Promise<Socket>((resolve, reject) => {
    const attempt = connect(path, () => resolve(attempt));
    attempt.once('error', reject);
  });
  let nextId = 1;
  const waiting = new Map<number, (answer: Answer | Error) => void>();
  const methods = new Map<number, string>();
  const lines = createInterface({ input: socket }).on('line', (line) => {
    const answer = JSON.parse(line) as Answer;
    if (typeof answer.id !== 'number') return;
    secrets.answered(methods.get(answer.id) ?? 'nothing', line);
    methods.delete(answer.id);
    waiting.get(answer.id)?.(answer);
  });
  lines.on('error', () => {}); // the socket's own, repeated: a daemon that is killed resets its connections
  const gone = (error?: Error): void => {
    for (const settle of waiting.values()) settle(error ?? new Error('The daemon closed the connection'));
  };
  socket.on('error', gone).on('close', () => gone());
  return {
    socket,
    close: () => void socket.destroy(),
    call: async <Result>(method: string, params: object = {}, options: { timeoutMs?: number } = {}) => {
      const id = nextId++;
      const timeoutMs = options.timeoutMs ?? CALL_DEADLINE_MS;
      const answer = await new Promise<Answer>((resolve, reject) => {
        const timer = setTimeout(
          () => settle(new Error(`${method} was not answered in ${timeoutMs / 1000} s`)),
          timeoutMs,
        );
        const settle = (value: Answer | Error): void => {
          clearTimeout(timer);
          waiting.delete(id);
          if (value instanceof Error) reject(value);
          else resolve(value);
        };
        waiting.set(id, settle);
        methods.set(id, method);
        if (socket.destroyed) settle(new Error('The connection is closed'));
        socket.write(`${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`);
      });
      if (answer.error !== undefined) {
        throw new RpcFailure(method, answer.error.code, answer.error.message, answer.error.data ?? {});
      }
      return answer.result as Result;
    },
  };
}
