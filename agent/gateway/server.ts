import { X509Certificate } from 'node:crypto';
import { type FSWatcher, readFileSync, watch } from 'node:fs';
import { createServer, isIP, type Server } from 'node:net';
import type { Config } from '../config/config.js';
import { bootClock } from '../host/boot-clock.js';
import { type InheritedSockets, listenOnDescriptor, noInheritedSockets } from '../host/inherited-sockets.js';
import type { Log } from '../log.js';
import { type ListenAddress, parseListen } from '../tls/addresses.js';
import { readCertificates } from '../tls/certificates.js';
import { HalfOpen } from '../tls/half-open.js';
import { RefusalLog } from '../tls/refusal-log.js';
import { advertisedName, loopbackAddress } from './addresses.js';
import type { Client, GatewayContext } from './context.js';
import { keyOf } from './credential.js';
import { EntryCache } from './entry-cache.js';
import { gatewayFiles, makeGatewayDirectory } from './files.js';
import { Session } from './session.js';
import { type GatewayStatus, serveStatus } from './status.js';
import { Refusal, TlsSide } from './tls.js';
import { Traffic } from './traffic.js';

/** How often it is looked for leases that have ended and clients that hang. What is torn down is noticed at once. */
const LOOK_MS = 1000;

export interface GatewayServer {
  /**
   * Takes over what may change while it runs, and reads the certificates again, for connections that come from now on.
   * @throws Error where a certificate cannot be read; all stays as it was
   */
  reload(fresh: Pick<Config, 'tls' | 'gateway'>): void;
  /** Ends all connections. Idempotent. */
  close(): Promise<void>;
}

/** FileDescriptorName= of the sockets that systemd opens for it, in the order of `[gateway] listen`. */
export const GATEWAY_SOCKET = 'gateway';

/** Listens for clients, and for the daemon's questions. @throws Error with what is in the way */
export async function serveGateway(
  config: Config,
  log: Log,
  inherited: InheritedSockets = noInheritedSockets,
): Promise<GatewayServer> {
  const { run } = config.paths;
  let settings = config.gateway;
  await makeGatewayDirectory(run);
  const clock = await bootClock();
  const refusals = new RefusalLog(log);
  const traffic = new Traffic();
  const halfOpen = new HalfOpen(settings.handshakes);
  const entries = new EntryCache(run);
  const tls = new TlsSide(readCertificates(config.tls), (identity) => keyOf(entries, identity, clock));
  /** All, and those of them that have shown who they are. */
  const sessions = new Set<Session>();
  const known = new Set<Client>();
  const context: GatewayContext = {
    ...{ entries, clock, log, refusals, traffic, halfOpen },
    get settings() {
      return settings;
    },
    admit(client) {
      halfOpen.leave(client);
      if (known.size >= settings.connections && !known.has(client)) {
        throw new Refusal(`${settings.connections} clients are connected, which is the limit`);
      }
      known.add(client);
    },
  };
  const check = () => {
    for (const client of known) client.check();
    const there = new Set(entries.ids());
    traffic.keep((exportId) => there.has(exportId));
  };
  const listeners: Server[] = [];
  const closers: (() => void)[] = [() => refusals.close()];
  const close = async () => {
    for (const closer of closers.splice(0)) closer();
    const closed = listeners.splice(0).map((one) => new Promise((resolve) => one.close(resolve)));
    for (const session of sessions) session.cut('the gateway ends');
    await Promise.all(closed);
  };
  try {
    for (const text of settings.listen) {
      const listener = createServer((socket) => {
        const session = new Session(socket, context);
        sessions.add(session);
        void session.run(tls).finally(() => {
          sessions.delete(session);
          known.delete(session);
        });
      });
      const address = parseListen(text);
      const fd = inherited.take(GATEWAY_SOCKET);
      if (fd === undefined) await listenOn(listener, address);
      else await listenOnDescriptor(listener, fd, address.port);
      listeners.push(listener);
    }
    const addresses = listeners.map(addressOf);
    let reached = reachedBy(config, addresses);
    const status = (): GatewayStatus => {
      check();
      return { ...reached, exports: traffic.all() };
    };
    inherited.assertAllTaken();
    listeners.push(await serveStatus(run, status));
    closers.push(...watchEntries(run, check, log));
    const reload = (fresh: Pick<Config, 'tls' | 'gateway'>) => {
      const certificates = readCertificates(fresh.tls);
      const nowReached = reachedBy(fresh, addresses);
      tls.reload(certificates);
      // Nothing fails from here on.
      reached = nowReached;
      settings = fresh.gateway;
    };
    return { reload, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Looks at once when an entry is written or removed, and once a second besides. What is told in one breath is one change. */
function watchEntries(run: string, check: () => void, log: Log): (() => void)[] {
  const timer = setInterval(check, LOOK_MS);
  let isComing = false;
  const onChange = () => {
    if (isComing) return;
    isComing = true;
    setImmediate(() => {
      isComing = false;
      check();
    });
  };
  const watcher: FSWatcher = watch(gatewayFiles(run).entries, onChange);
  watcher.on('error', (err) => log.error({ err }, 'cannot watch the exports; looking once a second'));
  return [() => clearInterval(timer), () => watcher.close()];
}

async function listenOn(server: Server, { host, port }: ListenAddress): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

function addressOf(server: Server): ListenAddress {
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('not a TCP listener');
  return { host: address.address, port: address.port };
}

/** How clients come to the gateway, as drives tell them. */
function reachedBy(
  { gateway, tls }: Pick<Config, 'gateway' | 'tls'>,
  addresses: readonly ListenAddress[],
): Omit<GatewayStatus, 'exports'> {
  const name = advertisedName(gateway.advertise, addresses);
  return {
    name,
    port: addresses[0]?.port ?? 0,
    x509: tls.cert !== '',
    tlsHostname: tls.cert === '' ? null : otherNameOf(new X509Certificate(readFileSync(tls.cert)), name),
    loopback: (gateway.plaintextLoopback && loopbackAddress(addresses)) || null,
  };
}

/** A name that the certificate bears, where it does not bear this one. */
function otherNameOf(certificate: X509Certificate, name: string): string | null {
  const matches = isIP(name) === 0 ? certificate.checkHost(name) : certificate.checkIP(name);
  if (matches !== undefined) return null;
  return /(?:^|, )DNS:([A-Za-z0-9_.-]+)/.exec(certificate.subjectAltName ?? '')?.[1] ?? null;
}
