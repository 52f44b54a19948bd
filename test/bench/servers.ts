/** The real gateway in front of a qemu-nbd, and qemu-nbd's own TLS, all over files in memory. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { type Access, ENTRY_VERSION, EntryStore, type GatewayEntry } from '../../agent/gateway/entry.js';
import { poll } from '../host/poll.js';
import { makePki, type Pki } from '../tls/pki.js';

const GATEWAY = fileURLToPath(new URL('../../dist/gateway.js', import.meta.url));
const MiB = 1 << 20;
const START_MS = 15_000;
const STOP_MS = 5000;
/** As the daemon serves an image: for several clients at once, and for as long as it is wanted. */
const SERVE = ['--persistent', '--shared=16', '--format=raw', '--aio=threads'];

const WAYS = ['read', 'write'] as const;
const CREDENTIALS = ['x509', 'psk'] as const;
type Way = (typeof WAYS)[number];
type Credential = (typeof CREDENTIALS)[number];

/** URIs of one file that is read and of one that is written, by way of each server. */
export interface Served {
  /** The file that is read. */
  readonly image: string;
  gateway(credential: Credential, way: Way): string;
  peer(credential: Credential, way: Way): string;
  straight(way: Way): string;
}

interface Teardown {
  teardown(undo: () => unknown): unknown;
}

/** One qemu-nbd, or the gateway: it ends with the bench. */
type Start = (command: string, ...args: string[]) => void;

export async function startServers(t: Teardown, mebibytes: number): Promise<Served> {
  // In memory: a disk would be measured otherwise. Short: sockets are below it.
  const dir = mkdtempSync('/dev/shm/vmd-');
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const start: Start = (command, ...args) => {
    const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'] });
    t.teardown(() => ended(child));
  };
  const pki = await makePki(join(dir, 'pki'));
  const key = randomBytes(32).toString('hex');
  const image = join(dir, 'read.raw');
  fill(image, mebibytes);
  const file = (server: string, way: Way): string[] => {
    if (way === 'read') return ['--read-only', image];
    const own = join(dir, `${server}.raw`); // QEMU lets one at a time write
    writeFileSync(own, '');
    truncateSync(own, mebibytes * MiB);
    return [own];
  };
  const qemuNbd = (server: string, way: Way, ...listen: string[]): void =>
    start('qemu-nbd', ...SERVE, '--export-name', way, ...listen, ...file(server, way));

  const sockets = { read: join(dir, 'read.sock'), write: join(dir, 'write.sock') };
  for (const way of WAYS) qemuNbd('straight', way, '--socket', sockets[way]);
  const peers = new Map<string, number>();
  for (const credential of CREDENTIALS) {
    const keys = join(dir, 'peer');
    mkdirSync(keys, { recursive: true });
    writeFileSync(join(keys, 'keys.psk'), `bench:${key}\n`, { mode: 0o600 });
    const where = credential === 'psk' ? keys : pki.client('server');
    const tls = `tls-creds-${credential},id=tls,endpoint=server,dir=${where},verify-peer=yes`;
    for (const way of WAYS) {
      const port = await freePort();
      peers.set(`${credential} ${way}`, port);
      const listen = ['--bind', '127.0.0.1', '--port', String(port)];
      qemuNbd(credential, way, '--object', tls, '--tls-creds', 'tls', ...listen);
    }
  }

  const run = join(dir, 'run');
  const store = new EntryStore(run);
  for (const way of WAYS) {
    const server = { socket: sockets[way], exportName: way };
    const [byKey, certified] = [`${way}-psk`, `${way}-x509`];
    await enter(store, byKey, server, { type: 'psk', identity: byKey, key });
    await enter(store, certified, server, { type: 'x509', clients: ['dns:appliance.example'] });
    writeFileSync(join(dir, `${byKey}.psk`), `${byKey}:${key}\n`, { mode: 0o600 });
  }
  const port = await freePort();
  writeFileSync(join(dir, 'vmdiskd.toml'), configuration(run, port, pki));
  start(process.execPath, GATEWAY, '--config', join(dir, 'vmdiskd.toml'));
  const withTls = (credential: Credential, port: number, name: string, user: string, keys: string): string =>
    credential === 'psk'
      ? `nbds://${user}@127.0.0.1:${port}/${name}?tls-psk-file=${keys}`
      : `nbds://127.0.0.1:${port}/${name}?tls-certificates=${pki.client('appliance')}`;
  const served: Served = {
    image,
    gateway(credential, way) {
      const name = `${way}-${credential}`;
      return withTls(credential, port, name, name, join(dir, `${name}.psk`));
    },
    peer: (credential, way) =>
      withTls(credential, peers.get(`${credential} ${way}`) ?? 0, way, 'bench', join(dir, 'peer/keys.psk')),
    straight: (way) => `nbd+unix:///${way}?socket=${sockets[way]}`,
  };
  for (const way of WAYS) {
    const uris = CREDENTIALS.flatMap((one) => [served.gateway(one, way), served.peer(one, way)]);
    for (const uri of [served.straight(way), ...uris]) await poll(uri, START_MS, () => answers(uri));
  }
  return served;
}

const enter = (
  store: EntryStore,
  exportId: string,
  server: GatewayEntry['server'],
  access: Access,
): Promise<void> =>
  store.put({
    ...{ version: ENTRY_VERSION, kind: 'network-export' },
    ...{ exportId, access, server },
    ...{ extendedHeaders: false, connections: 12, lease: null },
  });

function configuration(run: string, port: number, { tls }: Pki): string {
  const { cert, key, clientCa } = tls;
  return [
    ...['[paths]', `run = "${run}"`],
    ...['[gateway]', `listen = ["127.0.0.1:${port}"]`],
    ...['[tls]', `cert = "${cert}"`, `key = "${key}"`, `clientCa = "${clientCa}"`, ''],
  ].join('\n');
}

/** Data that is zero nowhere, so that no client and no server leaves any of it out. */
function fill(path: string, mebibytes: number): void {
  const file = openSync(path, 'wx');
  try {
    for (let at = 0; at < mebibytes; at++) writeSync(file, randomBytes(MiB));
  } finally {
    closeSync(file);
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** Whether the export is there, with all of its handshake. */
async function answers(uri: string): Promise<boolean> {
  const { exitCode } = await execa('nbdinfo', ['--size', uri], { reject: false, timeout: START_MS });
  return exitCode === 0;
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
  await exit.finally(() => clearTimeout(timer));
}
