/** The JSON-RPC edge: the real daemon, on a private host without libvirt, over its UNIX socket. Needs root. */
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { edgeLimits } from '../../agent/rpc/limits.js';
import type { SeededRandom } from '../golden/random.js';
import type { DaemonHandle, RpcConnection } from '../host/daemon.js';
import { type Host, startHost } from '../host/host.js';
import { checkAnswers } from './edge-answers.js';
import { deliver, pickDelivery } from './edge-delivery.js';
import { messageText } from './edge-messages.js';
import { type EdgeModelLimits, expectedAnswers } from './edge-model.js';
import { type Gauges, processGauges } from './gauges.js';
import { IMAGES } from './json-values.js';
import type { Fuzzer, Teardown } from './run.js';

/** Smaller than the default, so that an input can be over it. */
const limits: EdgeModelLimits = { frameBytes: 16_384, batch: 20, brokenFrames: edgeLimits.brokenFrames };

/** How long the daemon may take to say who it is, whatever else it is sent. */
const PROBE_MS = 1000;
const PROBE_EVERY_MS = 100;

/** What there is under the allowed root: nothing that could be exported. */
const makeFixtures = `cd ${IMAGES} && ln -s /etc/passwd link-out && ln -s link-loop link-loop && ln -s none link-nowhere && mkdir directory && mkfifo fifo && mknod device c 1 5`;

export async function edgeFuzzer(t: Teardown): Promise<Fuzzer> {
  const host = await startHost(t, { libvirt: 'none' });
  await host.must('sh', ['-c', makeFixtures]);
  const { frameBytes, batch } = limits;
  const daemon = await host.startDaemon({ limits: { frameBytes, batch } });
  const probe = watchOver(await daemon.connect());
  t.teardown(() => probe.close());
  let logRead = 0;
  return {
    name: 'edge',
    parallel: 6,
    deadlineMs: 20_000,
    warmUp: 400,
    growthMiB: 64,
    async play(random, about) {
      const { bytes, kinds } = input(random);
      const delivery = pickDelivery(random, bytes);
      about(
        `${delivery.kind}: ${kinds.join(', ')}\n${JSON.stringify(bytes.subarray(0, 2000).toString('latin1'))}`,
      );
      const got = await deliver(host.daemonSocket, delivery);
      if (got !== 'dropped') checkAnswers(got, expectedAnswers(bytes, limits));
      probe.check();
      const log = daemon.log().slice(logRead);
      logRead += log.length;
      checkLog(log);
    },
    gauges: () => probe.paused(() => gauges(host, daemon)),
    async finish() {
      // `drain {}` is a good call: its job, which ended nothing, is remembered.
      const records = recordsOf(host).filter((name) => !name.startsWith('jobs/'));
      const left = [...(await host.leftovers()), ...records];
      if (left.length > 0) throw new Error(`left behind: ${left.join(', ')}`);
      await daemon.kill();
    },
  };
}

/** One to four messages; now and then so many broken ones that the daemon gives up on the client. */
function input(random: SeededRandom): { bytes: Buffer; kinds: string[] } {
  if (random.chance(0.005)) {
    const count = limits.brokenFrames + random.below(3) - 1;
    return { bytes: Buffer.from('x\n'.repeat(count)), kinds: [`${count} broken`] };
  }
  const messages = Array.from({ length: random.pick([1, 1, 1, 2, 4]) }, (_, i) =>
    messageText(random, i + 1, limits.frameBytes),
  );
  return {
    bytes: Buffer.concat(messages.map(({ bytes }) => bytes)),
    kinds: messages.map(({ kind }) => kind),
  };
}

interface Probe {
  /** @throws Error once the daemon has been late */
  check(): void;
  /** Does something while nothing is asked: a question costs the daemon a connection and a process. */
  paused<T>(work: () => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

/** Asks again and again who the daemon is. Two late answers in a row are its fault; one may be this machine's. */
function watchOver(connection: RpcConnection): Probe {
  let fault: Error | undefined;
  let open = true;
  let pause = Promise.resolve();
  let asked = Promise.resolve(true);
  const ask = async (): Promise<boolean> => {
    const begun = performance.now();
    await connection.call('getHostInfo');
    return performance.now() - begun <= PROBE_MS;
  };
  const watching = (async () => {
    while (open) {
      await pause;
      asked = ask().then(async (prompt) => prompt || ask());
      if (!(await asked)) throw new Error(`getHostInfo took over ${PROBE_MS} ms, twice`);
      await sleep(PROBE_EVERY_MS);
    }
  })().catch((error: Error) => {
    fault = error;
  });
  return {
    check() {
      if (fault !== undefined) throw fault;
    },
    async paused(work) {
      let goOn = (): void => {};
      pause = new Promise((resolve) => {
        goOn = resolve;
      });
      try {
        await asked.catch(() => false); // the watch tells
        return await work();
      } finally {
        goOn();
      }
    },
    async close() {
      open = false;
      await watching;
      connection.close();
    },
  };
}

/** Errors in the log are of the daemon itself: none of what a caller sends is a reason for one. */
function checkLog(text: string): void {
  for (const line of text.split('\n')) {
    if (/^\{"level":"(debug|info|warn)"/.test(line) || line === '' || !line.endsWith('}')) continue;
    throw new Error(`the daemon's log: ${line}`);
  }
}

async function gauges(host: Host, { pid }: DaemonHandle): Promise<Gauges> {
  const { descriptors, residentMiB } = processGauges(`/proc/${host.pid}/root/proc/${pid}`);
  return { counts: { descriptors, processes: (await host.processes()).length }, residentMiB };
}

function recordsOf(host: Host): string[] {
  return readdirSync(host.path('/var/lib/vmdiskd'), { recursive: true, encoding: 'utf8' }).filter(
    (name) => name.includes('/') && !/^(lock|events)/.test(name),
  );
}
