/** A gateway in this process, on a free port of the loopback interface, and real servers and clients around it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import type { DestinationStream } from 'pino';
import { configFrom } from '../../agent/config/config.js';
import { ENTRY_VERSION, EntryStore, type GatewayEntry } from '../../agent/gateway/entry.js';
import { type GatewayServer, serveGateway } from '../../agent/gateway/server.js';
import { askGateway, type GatewayStatus } from '../../agent/gateway/status.js';
import { childProcesses } from '../../agent/host/process-child.js';
import { createLog } from '../../agent/log.js';
import type { ImageOptions } from '../../agent/nbd/image-options.js';
import { startQemuNbd, stopQemuNbd } from '../../agent/nbd/qemu-nbd.js';
import { makePki, type Pki } from '../tls/pki.js';

const wait = { timeoutMs: 60_000 };

interface Teardown {
  teardown(undo: () => unknown): unknown;
}

/** A line of the gateway's log. */
export interface LogLine {
  readonly level: string;
  readonly msg: string;
  readonly [member: string]: unknown;
}

export interface Rig {
  readonly dir: string;
  readonly run: string;
  readonly pki: Pki;
  readonly store: EntryStore;
  /** The log from its beginning. */
  lines(): LogLine[];
  /** Lines about refused clients, since the last call. */
  refusals(): LogLine[];
  gateway(options?: object, tls?: object): Promise<RunningGateway>;
  /** A qemu-nbd of an image; returns its socket. */
  serve(exportName: string, image: ImageOptions, bitmaps?: string[]): Promise<string>;
  /** Writes an entry; the rest of it is as usual. */
  enter(entry: Pick<GatewayEntry, 'exportId' | 'access' | 'server'> & Partial<GatewayEntry>): Promise<void>;
  /** A file with a key, as GnuTLS's psktool writes it, in a directory of its own, as QEMU wants it. */
  pskFile(exportId: string, key?: string): { dir: string; file: string };
}

export interface RunningGateway extends GatewayServer {
  readonly port: number;
  status(): Promise<GatewayStatus>;
}

export const KEY = 'a5'.repeat(32);
export const psk = (identity: string) => ({ type: 'psk', identity, key: KEY }) as const;

export async function makeRig(t: Teardown): Promise<Rig> {
  const dir = mkdtempSync('/tmp/vmd-gw-');
  const run = join(dir, 'run');
  const written: string[] = [];
  let seen = 0;
  const log = createLog({
    level: 'debug',
    journal: false,
    out: { write: (line: string) => written.push(line) } as unknown as DestinationStream,
  });
  const undo: (() => Promise<unknown>)[] = [];
  t.teardown(async () => {
    for (const one of undo.reverse()) await one();
    rmSync(dir, { recursive: true, force: true });
    const leak = written.find((line) => line.includes(KEY));
    if (leak !== undefined) throw new Error(`The key has got into the log: ${leak}`);
  });
  const pki = await makePki(join(dir, 'pki'));
  const lines = () => written.map((line) => JSON.parse(line) as LogLine);
  const store = new EntryStore(run);
  let servers = 0;
  return {
    dir,
    run,
    pki,
    store,
    lines,
    refusals() {
      const fresh = lines().slice(seen);
      seen = written.length;
      return fresh.filter(({ msg }) => msg === 'a client was refused');
    },
    async gateway(options = {}, tls = pki.tls) {
      const config = configFrom({ paths: { run }, gateway: options, tls });
      // A configuration file may not leave the port to the kernel; a test may.
      const gateway = { ...config.gateway, listen: ['127.0.0.1:0'] };
      const server = await serveGateway({ ...config, gateway }, log);
      undo.push(() => server.close());
      const status = () => askGateway(run, wait);
      return { ...server, port: (await status()).port, status };
    },
    async serve(exportName, image, bitmaps = []) {
      const number = ++servers;
      const server = await startQemuNbd(
        childProcesses,
        {
          name: `vmdiskd-test-gw-${process.pid}-${number}`,
          image,
          readOnly: true,
          exportName,
          socket: join(dir, `${number}.sock`),
          stderrFile: join(dir, `${number}.err`),
          bitmaps,
          allocationDepth: true,
        },
        wait,
      );
      undo.push(() => stopQemuNbd(childProcesses, server, { ...wait, graceMs: 5000 }));
      return server.socket;
    },
    enter: (entry) =>
      store.put({
        version: ENTRY_VERSION,
        kind: 'network-export',
        extendedHeaders: false,
        connections: 12,
        lease: null,
        ...entry,
      }),
    pskFile(exportId, key = KEY) {
      const own = mkdtempSync(join(dir, 'psk-'));
      const file = join(own, 'keys.psk');
      writeFileSync(file, `${exportId}:${key}\n`, { mode: 0o600 });
      return { dir: own, file };
    },
  };
}

/** What a command did. */
export interface Ran {
  readonly ok: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a client; it has a minute. */
export async function client(command: string, ...args: string[]): Promise<Ran> {
  const result = await execa(command, args, {
    reject: false,
    timeout: wait.timeoutMs,
    maxBuffer: 256 << 20,
    extendEnv: false,
    env: { LC_ALL: 'C.UTF-8', PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' },
  });
  return { ok: result.exitCode === 0, stdout: result.stdout, stderr: result.stderr };
}
