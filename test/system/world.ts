/** What all steps work on: the booted Debian, the service's own tool in it, and the guests that run there. */
import { execa } from 'execa';
import type { ListExportsResult } from '../../agent/api/generated.js';
import { poll } from '../host/poll.js';
import type { SystemGuest } from './guests.js';
import type { Machine } from './machine.js';

const CALL_DEADLINE_MS = 200_000;

/** Two packages of the same sources, the second of a higher version. Inside paths are `/root/<name>`. */
export interface Package {
  version: string;
  /** Inside path. */
  path: string;
}

export interface World {
  release: string;
  machine: Machine;
  first: Package;
  second: Package;
  /** Lines of what was there before the package; see traces.ts. */
  before: readonly string[];
  /** The VM whose disk is exported, and the one that drives are plugged into. */
  shop?: SystemGuest;
  appliance?: SystemGuest;
  /** Figures for the result, by name. */
  figures: Map<string, string>;
}

/** Calls a verb by `vmdiskctl`. @throws Error with its words */
export async function ctl<Result>({ machine }: World, verb: string, params: object = {}): Promise<Result> {
  const options = Object.entries(params).flatMap(([name, value]) => optionOf(name, value));
  const command = ['vmdiskctl', '--json', '--retry', '60', kebab(verb), ...options];
  return JSON.parse(await machine.must(command, { timeoutMs: CALL_DEADLINE_MS })) as Result;
}

function optionOf(name: string, value: unknown): string[] {
  if (Array.isArray(value)) return value.flatMap((item) => optionOf(name, item));
  if (value === true) return [`--${kebab(name)}`];
  return [`--${kebab(name)}`, typeof value === 'string' ? value : JSON.stringify(value)];
}

const kebab = (name: string): string => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/** One property of a unit, as systemd tells it. */
export async function unitProperty({ machine }: World, unit: string, property: string): Promise<string> {
  return machine.must(['systemctl', 'show', '--value', '-p', property, unit]);
}

export async function isActive({ machine }: World, unit: string): Promise<boolean> {
  return (await machine.run(['systemctl', 'is-active', unit])).stdout === 'active';
}

/** The daemon's pid in there. */
export async function daemonPid(world: World): Promise<number> {
  return Number(await unitProperty(world, 'vmdiskd.service', 'MainPID'));
}

/** Waits until systemd has another daemon than that, and it is ready. @returns seconds waited */
export async function waitForAnother(world: World, pid: number, deadlineMs: number): Promise<number> {
  const begun = Date.now();
  await poll(
    'another daemon',
    deadlineMs,
    async () => {
      const now = await daemonPid(world);
      return now !== 0 && now !== pid && (await isActive(world, 'vmdiskd.service'));
    },
    200,
  );
  return (Date.now() - begun) / 1000;
}

/** Ends all exports, of whatever step that has failed: it is not to hide how the next one goes. */
export async function clearExports(world: World): Promise<void> {
  await world.machine.run(['systemctl', 'stop', 'reader-*']);
  const { exports } = await ctl<ListExportsResult>(world, 'listExports');
  for (const { exportId } of exports) {
    await ctl(world, 'teardownBackupDisk', { exportId, outcome: 'failed', force: true });
  }
}

/** Makes both packages from this checkout, which has been built. @returns their files out here */
export async function makePackages(
  root: string,
  out: string,
  versions: readonly string[],
): Promise<string[]> {
  const files: string[] = [];
  for (const version of versions) {
    const make = ['systemd/package.ts', '--version', version, '--out', out];
    const { stdout } = await execa(`${root}/node_modules/.bin/tsx`, make, { cwd: root, timeout: 120_000 });
    files.push(stdout.trim());
  }
  return files;
}
