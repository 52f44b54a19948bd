import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';

import { Connection } from '../../agent/nbd/connection.js';
import type { NbdAddress } from '../../agent/nbd/uri.js';

/** Bytes from lines of hex, each with a comment after `#`. */
export function hex(text: string): Buffer {
  const digits = text.replace(/#.*$/gm, '').replace(/\s+/g, '');
  if (!/^([0-9a-f]{2})*$/.test(digits)) throw new Error(`not hex: ${digits}`);
  return Buffer.from(digits, 'hex');
}

/** What a scripted server does in turn: wait for exactly these bytes, send these, or end the connection. */
export type Step = { expect: Buffer } | { send: Buffer } | 'end' | 'reset';

interface Teardown {
  teardown(undo: () => void): void;
  fail(message: string): void;
}

/**
 * A server that follows a script, once a connection; what it gets must be what the script says. It shares no codec
 * with the client, so that one mistake cannot hide in both.
 */
export async function scriptedServer(t: Teardown, ...script: Step[]): Promise<NbdAddress> {
  const folder = mkdtempSync('/tmp/vmdiskd-wire-');
  const socket = join(folder, 'nbd.sock');
  const accepted = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (peer) => {
    accepted.add(peer);
    play(new Connection(peer), script).catch((error: Error) => {
      if (error.message.startsWith('script')) t.fail(error.message);
      peer.destroy();
    });
  });
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  t.teardown(() => {
    for (const peer of accepted) peer.destroy();
    server.close();
    rmSync(folder, { recursive: true });
  });
  return { transport: 'unix', socket };
}

async function play(connection: Connection, script: readonly Step[]): Promise<void> {
  for (const [index, step] of script.entries()) {
    if (step === 'end') connection.socket.end();
    else if (step === 'reset') connection.socket.destroy();
    else if ('send' in step) connection.write(step.send);
    else {
      const got = await connection.read(step.expect.length);
      if (!got.equals(step.expect)) {
        throw new Error(
          `script, step ${index}: got ${got.toString('hex')}, not ${step.expect.toString('hex')}`,
        );
      }
    }
  }
}

/** The handshake up to the transmission phase: an export `d` of 1 MiB, one or two contexts, by raw bytes. */
export function handshake(options: {
  replies: 'structured' | 'extended';
  contexts?: 1 | 2;
  size?: string;
  blockSizes?: string;
}): Step[] {
  const { replies, contexts = 1, size = '0000000000100000', blockSizes } = options;
  const accept: Step[] =
    replies === 'extended'
      ? [{ expect: optionBytes('0000000b') }, { send: ackBytes('0000000b') }]
      : [
          { expect: optionBytes('0000000b') },
          { send: hex(`0003e889045565a9 0000000b 80000001 00000000 # EXTENDED_HEADERS: NBD_REP_ERR_UNSUP`) },
          { expect: optionBytes('00000008') },
          { send: ackBytes('00000008') },
        ];
  return [
    { send: greeting },
    { expect: hex('00000003 # fixed newstyle, no zeroes') },
    ...accept,
    { expect: contexts === 1 ? setOne : setTwo },
    {
      send:
        contexts === 1
          ? contextReply('00000011', 'a')
          : Buffer.concat([contextReply('00000022', 'b'), contextReply('00000011', 'a')]),
    },
    { send: ackBytes('0000000a') },
    {
      expect: hex(`
        49484156454f5054 00000007 00000009  # IHAVEOPT, NBD_OPT_GO, 9 bytes
        00000001 64                         # the name: d
        0001 0003                           # one request: NBD_INFO_BLOCK_SIZE
      `),
    },
    {
      send: hex(`
        0003e889045565a9 00000007 00000003 0000000c  # to GO: NBD_REP_INFO, 12 bytes
        0000 ${size} 0103                            # NBD_INFO_EXPORT, size, flags: read-only, multi-conn
      `),
    },
    ...(blockSizes
      ? [
          {
            send: hex(`0003e889045565a9 00000007 00000003 0000000e 0003 ${blockSizes} # NBD_INFO_BLOCK_SIZE`),
          },
        ]
      : []),
    {
      send: hex('0003e889045565a9 00000007 00000003 00000004 00ff beef # an information type of the future'),
    },
    { send: ackBytes('00000007') },
  ];
}

export const greeting = hex(`
  4e42444d41474943  # NBDMAGIC
  49484156454f5054  # IHAVEOPT
  0003              # fixed newstyle, no zeroes
`);

/** An option without data. */
export function optionBytes(option: string): Buffer {
  return hex(`49484156454f5054 ${option} 00000000`);
}

/** NBD_REP_ACK to that option. */
export function ackBytes(option: string): Buffer {
  return hex(`0003e889045565a9 ${option} 00000001 00000000`);
}

/** NBD_REP_META_CONTEXT to SET_META_CONTEXT: an id and a name `x:` + one letter. */
export function contextReply(id: string, letter: string): Buffer {
  return Buffer.concat([
    hex(`0003e889045565a9 0000000a 00000004 00000007 ${id}`),
    Buffer.from(`x:${letter}`),
  ]);
}

const setOne = hex(`
  49484156454f5054 0000000a 00000010  # IHAVEOPT, NBD_OPT_SET_META_CONTEXT, 16 bytes
  00000001 64                         # the export: d
  00000001                            # one query
  00000003 783a61                     # x:a
`);

const setTwo = hex(`
  49484156454f5054 0000000a 00000017  # IHAVEOPT, NBD_OPT_SET_META_CONTEXT, 23 bytes
  00000001 64                         # the export: d
  00000002                            # two queries
  00000003 783a61                     # x:a
  00000003 783a62                     # x:b
`);

/** All that an iterable gives, in order. (Array.fromAsync is not in Node 20.) */
export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}
