/**
 * What the gateway tells the daemon: that it runs, how it is reached, and what has passed through it. A small UNIX socket:
 * who connects is told, as one JSON value, and the connection ends.
 */
import { rm } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { type Wait, within } from '../host/process-wait.js';
import { gatewayFiles } from './files.js';
import type { ExportTraffic } from './traffic.js';

export interface GatewayStatus {
  /** The name or address, and the port, that drives of this host bear. */
  readonly name: string;
  readonly port: number;
  /** Whether certificates are set up. */
  readonly x509: boolean;
  /** The name that the gateway's certificate bears, where it does not bear the one that is advertised. */
  readonly tlsHostname: string | null;
  /** Where clients of this host come in without TLS; null where they do not. */
  readonly loopback: { readonly host: string; readonly port: number } | null;
  readonly exports: Readonly<Record<string, ExportTraffic>>;
}

/** Bytes of an answer: some hundred for each of 10,000 exports. */
const MAX_ANSWER = 4 * 1024 * 1024;

/** Answers daemons until it is closed. @param status asked anew for each */
export async function serveStatus(run: string, status: () => GatewayStatus): Promise<Server> {
  const { socket } = gatewayFiles(run);
  await rm(socket, { force: true }); // the directory's lock says that nobody serves it
  const server = createServer((peer) => {
    peer.on('error', () => peer.destroy());
    peer.end(JSON.stringify(status()));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    const umask = process.umask(0o177);
    try {
      server.listen(socket, resolve);
    } finally {
      process.umask(umask);
    }
  });
  return server;
}

/**
 * Asks the gateway. Before it answers it has ended the connections of clients whose export is gone.
 * @throws Error where no gateway answers in time, with why
 */
export async function askGateway(run: string, wait: Wait): Promise<GatewayStatus> {
  return within('Asking vmdiskd-gateway', wait, async (signal) => {
    const socket = connect(gatewayFiles(run).socket);
    const onAbort = () => socket.destroy(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      const pieces: Buffer[] = [];
      let length = 0;
      for await (const piece of socket as AsyncIterable<Buffer>) {
        pieces.push(piece);
        length += piece.length;
        if (length > MAX_ANSWER) throw new Error(`vmdiskd-gateway says more than ${MAX_ANSWER} bytes`);
      }
      return JSON.parse(Buffer.concat(pieces).toString('utf8')) as GatewayStatus;
    } finally {
      signal.removeEventListener('abort', onAbort);
      socket.destroy();
    }
  });
}
