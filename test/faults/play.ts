/** Plays a scenario with a fault in it, and looks whether the host, the data and the next cycle are right after it. */
import { readFileSync } from 'node:fs';
import { type Base, cycle } from './cycle.js';
import { armingOf, type Fault, faultText, isServer, mannersOf } from './fault.js';
import type { Rig } from './rig.js';
import { scenarioOf } from './scenarios/index.js';
import { Refused, Stage } from './stage.js';
import { revive, tidy } from './tidy.js';
import { VmEnded } from './vms.js';

/** Characters of a log that go with a failure. */
const LOG_TAIL = 6000;

/** How a fault went. */
export interface Outcome {
  /** What to give as `ONE` to have it again. */
  fault: string;
  /** `missed`: the scenario did not pass that point this time. */
  result: 'passed' | 'missed' | 'failed';
  /** How often the daemon was killed. */
  kills: number;
  /** The name of the error that ended the play; null where it went to its end. */
  refused: string | null;
  ms: number;
  /** The longest time that the host took to be what its records say. */
  settleMs: number;
  problem?: string;
}

/** A host, and what is kept on it from one play to the next. */
export class Player {
  #plays = 0;
  #base: Base | null = null;

  constructor(readonly rig: Rig) {}

  /** The points that a scenario passes where nothing happens. @throws what is wrong already then */
  async points(scenario: string): Promise<string[]> {
    const tag = this.#tag();
    const stage = new Stage(this.rig, tag);
    await this.rig.daemon.arm({ at: null, tag });
    await scenarioOf(scenario).play(stage);
    const points = this.rig.daemon.passed();
    await this.#restored(stage, true);
    return points;
  }

  /** Never throws; after `failed` the host is of no more use. */
  async play(fault: Fault): Promise<Outcome> {
    const begun = Date.now();
    const { rig } = this;
    const tag = this.#tag();
    const stage = new Stage(rig, tag, mannersOf(fault));
    const outcome = { fault: faultText(fault), refused: null as string | null };
    const costs = () => ({ kills: stage.kills, ms: Date.now() - begun, settleMs: rig.longestSettleMs });
    rig.longestSettleMs = 0;
    try {
      await rig.daemon.arm(armingOf(fault, rig, tag));
      const before = rig.daemon;
      await scenarioOf(fault.scenario)
        .play(stage)
        .catch((error: unknown) => {
          if (error instanceof Refused) outcome.refused = error.error;
          else if (error instanceof VmEnded && fault.victim === 'qemu') outcome.refused = error.name;
          else throw error;
        });
      if (outcome.refused !== null && isServer(fault.victim)) await rig.settle(); // the export has failed by then
      const hit = before.passed().some((line) => /^(KILLED|HARMED)/.test(line));
      await stage.call('listExports', {}); // it may have been killed after its last answer
      await rig.daemon.arm({ at: null });
      await this.#restored(stage, fault.victim !== 'qemu');
      const result = hit ? 'passed' : 'missed';
      return { ...outcome, result, ...costs() };
    } catch (error) {
      const problem = error instanceof Error ? (error.stack ?? error.message) : String(error);
      const log = rig.daemon.log().slice(-LOG_TAIL);
      const libvirt = libvirtLog(rig).slice(-LOG_TAIL);
      return {
        ...outcome,
        result: 'failed',
        ...costs(),
        problem: `${problem}\n${log}\nlibvirt:\n${libvirt}`,
      };
    }
  }

  /** Nothing is left but the last good backup, and the next cycle is right. */
  async #restored({ tag }: Stage, trusted: boolean): Promise<void> {
    const stage = new Stage(this.rig, tag);
    await revive(stage);
    const { restarted } = await tidy(stage, this.#kept());
    await this.rig.settle(this.#kept());
    await this.rig.guest.beat();
    this.#base = await cycle(stage, this.#base, trusted && !restarted);
    await this.rig.settle(this.#kept());
  }

  #kept(): string[] {
    return this.#base === null ? [] : [this.#base.checkpoint];
  }

  #tag(): string {
    this.#plays += 1;
    return `-p${this.#plays}`;
  }
}

/** Warnings and errors of libvirtd since the host was made. */
function libvirtLog({ host }: Rig): string {
  try {
    return readFileSync(host.path('/var/log/libvirt/libvirtd.log'), 'utf8');
  } catch (error) {
    return String(error);
  }
}
