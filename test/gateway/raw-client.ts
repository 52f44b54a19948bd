/** A client that does what no real one would: every step of it by itself. */
import { readFileSync } from 'node:fs';
import { connect as connectTcp, type Socket } from 'node:net';
import { join } from 'node:path';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import { Connection } from '../../agent/nbd/connection.js';
import { Option } from '../../agent/nbd/constants.js';
import {
  decodeGreeting,
  decodeOptionReplyHeader,
  encodeClientFlags,
  encodeOption,
  greetingLength,
  optionReplyHeaderLength,
} from '../../agent/nbd/negotiation.js';
import { encodeInfoRequest } from '../../agent/nbd/negotiation-data.js';

export const goTo = (exportName: string): Buffer =>
  encodeOption(Option.GO, encodeInfoRequest({ exportName, infos: [] }));

/** A TCP connection to the gateway, nothing said yet. */
export async function connectPlain(port: number): Promise<Socket> {
  const socket = connectTcp(port, '127.0.0.1');
  socket.on('error', () => {});
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  return socket;
}

/** Greeted, and the flags sent. */
export async function greeted(port: number, flags = 3): Promise<Connection> {
  const connection = new Connection(await connectPlain(port));
  decodeGreeting(await connection.read(greetingLength));
  connection.write(encodeClientFlags(flags));
  return connection;
}

/** The replies to one option, up to the last: type and data of each. */
export async function replies(connection: Connection): Promise<{ type: number; data: Buffer }[]> {
  const all: { type: number; data: Buffer }[] = [];
  for (;;) {
    const { type, length } = decodeOptionReplyHeader(await connection.read(optionReplyHeaderLength));
    all.push({ type, data: await connection.read(length) });
    if (type === 1 || type >= 0x80000000) return all;
  }
}

/** TLS as far as the client can tell. What the server says of it shows in what is read next. */
export async function secured(
  port: number,
  options: ConnectionOptions,
): Promise<{ connection: Connection; socket: TLSSocket }> {
  const plain = await greeted(port);
  plain.write(encodeOption(Option.STARTTLS));
  await replies(plain);
  const socket = connectTls({ socket: plain.release(), servername: 'localhost', ...options });
  socket.on('error', () => {});
  const connection = new Connection(socket);
  await new Promise<void>((resolve, reject) =>
    socket.once('secureConnect', resolve).once('close', () => reject(new Error('closed in the handshake'))),
  );
  return { connection, socket };
}

/** How to show a key. */
export function withKey(identity: string, key: string): ConnectionOptions {
  return {
    pskCallback: () => ({ identity, psk: Buffer.from(key, 'hex') }),
    // With a key there is no certificate to compare with the name.
    checkServerIdentity: () => undefined,
    ciphers: 'TLS_AES_128_GCM_SHA256:ECDHE-PSK-CHACHA20-POLY1305',
  };
}

/** How to show the certificate in a directory. */
export function withCertificate(dir: string): ConnectionOptions {
  const read = (name: string) => readFileSync(join(dir, name));
  return { ca: read('ca-cert.pem'), cert: read('client-cert.pem'), key: read('client-key.pem') };
}
