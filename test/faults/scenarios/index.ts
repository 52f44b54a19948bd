import { backups } from './backups.js';
import { guests } from './guests.js';
import { hotplug } from './hotplug.js';
import { images } from './images.js';
import { mounts } from './mounts.js';
import { network } from './network.js';
import type { Scenario } from './scenario.js';
import { snapshots } from './snapshots.js';

/** All walks. Together they take every verb that changes something. */
export const SCENARIOS: readonly Scenario[] = [
  ...images,
  ...backups,
  ...snapshots,
  ...hotplug,
  ...guests,
  ...network,
  ...mounts,
];

/** @throws for a name that none has */
export function scenarioOf(name: string): Scenario {
  const found = SCENARIOS.find((scenario) => scenario.name === name);
  if (found !== undefined) return found;
  throw new Error(`no scenario ${name}; there are ${SCENARIOS.map((one) => one.name).join(', ')}`);
}
