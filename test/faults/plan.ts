/** Which faults a campaign makes, as its seed decides. */
import { SeededRandom } from '../golden/random.js';
import { type Fault, isServer, type Victim } from './fault.js';
import { scenarioOf } from './scenarios/index.js';

/** Every so many faults one is of another victim than the daemon. */
const OTHERS = 3;
/** The longest recovery has about as many points. */
const RECOVERY_POINTS = 30;
const AWAY_MS = 5000;
/** From where on there is a server. */
const GATES = {
  'qemu-nbd': /^after opening the gate of qemu-nbd/,
  overlay: /^after opening the gate of overlay/,
  file: /^after opening the gate of (nbdfuse|qemu-storage-daemon)/,
};

/** Points of which each is another place: right before a deed is where the daemon was after the last one. */
export function places(points: readonly string[]): string[] {
  return points.filter(
    (point, index) =>
      !(point.startsWith('before ') && /^(after|answered|exit) /.test(points[index - 1] ?? '')),
  );
}

/**
 * Endless. The daemon is killed at every place in every scenario before it is killed at one again, scenario after
 * scenario in turn, so that also a short campaign is spread over all of them.
 * @param points of each scenario, in the order in which it passes them
 */
export function* plan(points: ReadonlyMap<string, readonly string[]>, seed: string): Generator<Fault> {
  const random = new SeededRandom(seed, 'faults');
  const daemons = deal(new Map([...points].map(([scenario, names]) => [scenario, places(names)])), random);
  const others = otherFaults(points, random);
  for (let index = 1; ; index++) {
    const fault = (index % OTHERS === 0 ? others : daemons).next().value;
    if (fault !== undefined) yield fault;
  }
}

function* deal(points: ReadonlyMap<string, readonly string[]>, random: SeededRandom): Generator<Fault> {
  for (;;) {
    const decks = [...points].map(([scenario, names]) => ({ scenario, left: [...names] }));
    while (decks.some(({ left }) => left.length > 0)) {
      for (const { scenario, left } of decks) {
        const [point] = left.splice(random.below(Math.max(left.length, 1)), 1);
        if (point === undefined) continue;
        const victim = random.pick<Victim>(['kill', 'kill', 'kill-now', 'kill-now', 'kill-twice']);
        const detail = victim === 'kill-twice' ? 1 + random.below(RECOVERY_POINTS) : null;
        yield { scenario, victim, detail, point };
      }
    }
  }
}

function* otherFaults(
  points: ReadonlyMap<string, readonly string[]>,
  random: SeededRandom,
): Generator<Fault> {
  const victims: Victim[] = [
    'libvirtd',
    'qemu',
    'kill-qemu-stalls',
    'qemu-nbd',
    'kill-libvirtd-stalls',
    'gateway',
    'overlay',
    'file',
  ];
  for (let index = 0; ; index++) {
    const victim = victims[index % victims.length] ?? 'qemu';
    const able = [...points].flatMap(([scenario, names]) => {
      const among = reach(victim, scenario, names);
      return among.length === 0 ? [] : [{ scenario, among }];
    });
    if (able.length === 0) continue; // libvirtd can be killed in every scenario, so this ends
    const chosen = able[random.below(able.length)];
    const point = chosen?.among[random.below(chosen.among.length)];
    if (chosen === undefined || point === undefined) return;
    const detail = /libvirtd|stalls|gateway/.test(victim) ? random.below(AWAY_MS) : null;
    yield { scenario: chosen.scenario, victim, detail, point };
  }
}

/** The points at which there is somebody to be killed. */
function reach(victim: Victim, scenario: string, names: readonly string[]): readonly string[] {
  const { vm, qemuNbd, overlay, file, network } = scenarioOf(scenario);
  if (victim.startsWith('kill-')) {
    return vm === undefined ? [] : names.filter((name) => name.startsWith('sent '));
  }
  if (victim === 'gateway') return network ? names : [];
  if (victim === 'qemu') return vm === undefined ? [] : names;
  if (!isServer(victim)) return names;
  const serves = victim === 'qemu-nbd' ? qemuNbd : victim === 'overlay' ? overlay : file;
  if (!serves) return [];
  const from = names.findIndex((name) => GATES[victim].test(name));
  const to = names.findLastIndex((name) => name.startsWith('before signal'));
  return names.slice(from, to);
}
