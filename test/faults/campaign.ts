/** Faults one after another on one host, which is made anew after a failure. */
import type { Fault, Victim } from './fault.js';
import { parseFault } from './fault.js';
import { places, plan } from './plan.js';
import { type Outcome, Player } from './play.js';
import { Rig } from './rig.js';
import { SCENARIOS } from './scenarios/index.js';

/** How often a fault whose point was not passed is tried again: what runs beside a verb takes its own order. */
const ATTEMPTS = 2;

/** What a campaign has come to. */
export interface Totals {
  outcomes: Outcome[];
  /** Places in each scenario at which the daemon can be killed. */
  points: Map<string, number>;
}

export interface CampaignOptions {
  seed: string;
  /** Faults that are wanted; those that were missed do not count. */
  faults: number;
  /** These alone, instead. */
  only?: readonly string[];
  /** Names of the scenarios that they are of; absent: all. */
  scenarios?: readonly string[];
  onOutcome(outcome: Outcome): void;
}

export async function campaign({
  seed,
  faults,
  only,
  scenarios = SCENARIOS.map(({ name }) => name),
  onOutcome,
}: CampaignOptions): Promise<Totals> {
  const stock = new Stock();
  const totals: Totals = { outcomes: [], points: new Map() };
  try {
    const wanted = only?.map(parseFault);
    const made = wanted ?? plan(await allPoints(await stock.player(), scenarios, totals), seed);
    let count = 0;
    for (const fault of made) {
      const outcome = await attempt(stock, fault);
      totals.outcomes.push(outcome);
      onOutcome(outcome);
      if (outcome.result !== 'missed') count += 1;
      if (outcome.result === 'failed') await stock.renew();
      if (count >= faults) break;
    }
    return totals;
  } finally {
    await stock.renew();
  }
}

async function attempt(stock: Stock, fault: Fault): Promise<Outcome> {
  let outcome = await (await stock.player()).play(fault);
  for (let left = ATTEMPTS - 1; left > 0 && outcome.result === 'missed'; left--) {
    outcome = await (await stock.player()).play(fault);
  }
  return outcome;
}

async function allPoints(
  player: Player,
  scenarios: readonly string[],
  totals: Totals,
): Promise<Map<string, string[]>> {
  const points = new Map<string, string[]>();
  for (const name of scenarios) {
    const found = await player.points(name);
    points.set(name, found);
    totals.points.set(name, places(found).length);
  }
  return points;
}

/** The host in use. */
class Stock {
  #player: Player | undefined;
  #closers: (() => unknown)[] = [];

  async player(): Promise<Player> {
    this.#player ??= new Player(await Rig.start({ teardown: (close) => this.#closers.push(close) }));
    return this.#player;
  }

  /** The next one is another. */
  async renew(): Promise<void> {
    this.#player = undefined;
    for (const close of this.#closers.splice(0).reverse()) await close();
  }
}

/** A table of what became of the faults, by victim. */
export function table({ outcomes }: Totals): string[] {
  const victims = [...new Set(outcomes.map(({ fault }) => parseFault(fault).victim))];
  const row = (what: Victim | 'all', list: readonly Outcome[]) => {
    const count = (result: Outcome['result']) => list.filter((one) => one.result === result).length;
    const kills = list.reduce((sum, one) => sum + one.kills, 0);
    const places = new Set(list.map(({ fault }) => fault.replace(/^([^/]+)\/[^/]+\//, '$1 '))).size;
    return `| ${what} | ${list.length} | ${places} | ${kills} | ${count('passed')} | ${count('failed')} | ${count('missed')} |`;
  };
  return [
    '| victim | faults | different points | daemon killed | passed | failed | missed |',
    '|---|---|---|---|---|---|---|',
    ...victims.map((victim) =>
      row(
        victim,
        outcomes.filter(({ fault }) => parseFault(fault).victim === victim),
      ),
    ),
    row('all', outcomes),
  ];
}
