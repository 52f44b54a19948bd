/**
 * `npm run bench`: what the gateway costs, against qemu-nbd's own TLS over the same file in the same run, and what a throw-away
 * layer does, against a read-only export. Machines differ and are seldom quiet: the variants take turns, and what counts is the
 * ratio within a turn, of which the median is told.
 * `ROUNDS=N` (default 7) turns, `MIB=N` (default 512) MiB read in each.
 */

import { type Latency, latencyOf } from './latency.js';
import { type Layered, startLayers } from './layers.js';
import { median } from './median.js';
import { type Served, startServers } from './servers.js';
import { copyRate } from './throughput.js';

const say = (line: string): void => void process.stdout.write(`${line}\n`);

const { ROUNDS = '7', MIB = '512' } = process.env;
const [rounds, mebibytes] = [Number(ROUNDS), Number(MIB)];
if (!(Number.isSafeInteger(rounds) && rounds > 0 && Number.isSafeInteger(mebibytes) && mebibytes > 0)) {
  say('usage: ROUNDS=N MIB=N npm run bench');
  process.exit(1);
}

const closers: (() => unknown)[] = [];
const teardown = (close: () => unknown): unknown => closers.push(close);
const stop = async (): Promise<void> => {
  for (let close = closers.pop(); close !== undefined; close = closers.pop()) await close();
};
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void stop().finally(() => process.exit(1)));
}

try {
  const served = await startServers({ teardown }, mebibytes);
  await throughput(served);
  await latency(served);
  await layers(await startLayers({ teardown }, served.image));
} finally {
  await stop();
}

/** MiB/s of nbdcopy, both ways, with four connections and with one. */
async function throughput({ gateway, peer, image }: Served): Promise<void> {
  say('| nbdcopy | TLS | connections | gateway, MiB/s | qemu-nbd, MiB/s | ratio |');
  say('|---|---|---|---|---|---|');
  for (const way of ['read', 'write'] as const) {
    for (const credential of ['x509', 'psk'] as const) {
      for (const connections of [4, 1]) {
        const rates: { ours: number; theirs: number }[] = [];
        for (let round = 0; round < rounds; round++) {
          const rate = (uri: string): Promise<number> =>
            copyRate({ way, uri, connections, image, mebibytes });
          const [a, b] = [gateway(credential, way), peer(credential, way)];
          // Whoever comes first in a turn has the colder machine: they take turns in that too.
          const swapped = round % 2 === 1;
          const [first, second] = [await rate(swapped ? b : a), await rate(swapped ? a : b)];
          rates.push(swapped ? { ours: second, theirs: first } : { ours: first, theirs: second });
        }
        const cells = [
          ...[way, credential, String(connections)],
          median(rates.map(({ ours }) => ours)).toFixed(0),
          median(rates.map(({ theirs }) => theirs)).toFixed(0),
          median(rates.map(({ ours, theirs }) => ours / theirs)).toFixed(2),
        ];
        say(`| ${cells.join(' | ')} |`);
      }
    }
  }
}

/** Milliseconds of one request after another. */
async function latency({ gateway, peer, straight }: Served): Promise<void> {
  const ways: [string, string, number][] = [
    ['no TLS, UNIX socket', straight('read'), 400],
    ['gateway, x509', gateway('x509', 'read'), 400],
    ['gateway, psk', gateway('psk', 'read'), 400],
    ['qemu-nbd, x509', peer('x509', 'read'), 40],
    ['qemu-nbd, psk', peer('psk', 'read'), 40],
  ];
  say('');
  say('| one request at a time | 4 KiB read, ms (95 %) | block status, ms (95 %) |');
  say('|---|---|---|');
  for (const [name, uri, requests] of ways) {
    const { read, status }: Latency = await latencyOf(uri, requests);
    const cell = ({ median, p95 }: Latency['read']): string => `${median.toFixed(2)} (${p95.toFixed(2)})`;
    say(`| ${name} | ${cell(read)} | ${cell(status)} |`);
  }
}

/** nbdcopy of an image, with four connections and with one: through the daemon's servers, against a plain one. */
async function layers(served: Layered): Promise<void> {
  const ways = ['plain', 'readOnly', 'scratch'] as const;
  say('');
  say('| connections | plain qemu-nbd, MiB/s | read-only export | scratch export | of read-only |');
  say('|---|---|---|---|---|');
  for (const connections of [4, 1]) {
    const rates: Record<keyof Layered, number>[] = [];
    for (let round = 0; round < rounds; round++) {
      const turn = { plain: 0, readOnly: 0, scratch: 0 };
      // Each is first in some turn.
      for (let i = 0; i < ways.length; i++) {
        const way = ways[(round + i) % ways.length] ?? 'plain';
        turn[way] = await copyRate({ way: 'read', uri: served[way], connections, image: '', mebibytes });
      }
      rates.push(turn);
    }
    const ratio = (over: (turn: Record<keyof Layered, number>) => number): string =>
      median(rates.map(over)).toFixed(2);
    const cells = [
      ...[String(connections), median(rates.map(({ plain }) => plain)).toFixed(0)],
      ratio(({ readOnly, plain }) => readOnly / plain),
      ratio(({ scratch, plain }) => scratch / plain),
      ratio(({ scratch, readOnly }) => scratch / readOnly),
    ];
    say(`| ${cells.join(' | ')} |`);
  }
}
