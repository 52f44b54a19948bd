/** A fault: in which scenario, at which point, what happens. Its text is all that it takes to have it again. */
import type { Arming } from './inject/point.js';
import type { Rig } from './rig.js';
import { scenarioOf } from './scenarios/index.js';
import type { Manners } from './stage.js';

/** Who is harmed, and how. */
const VICTIMS = {
  /** The daemon is killed, and the host has to settle before the caller goes on. */
  kill: { kill: true },
  /** The daemon is killed, and the caller repeats its call as soon as there is one again. */
  'kill-now': { kill: true, prompt: true },
  /** The daemon is killed, and once more at a point of its recovery; the number says which. */
  'kill-twice': { kill: true },
  /** The daemon is killed while QEMU does not answer, and so what was asked of it is done some milliseconds later. */
  'kill-qemu-stalls': { kill: true, prompt: true },
  /** The same of libvirtd, which has the daemon's last words still to read. */
  'kill-libvirtd-stalls': { kill: true, prompt: true },
  /** QEMU is killed: that of the VM that the scenario is about. */
  qemu: { mayBeRefused: true },
  /** The qemu-nbd of an export: what shows the point in time, or writes to the image. */
  'qemu-nbd': { mayBeRefused: true },
  /** The one of a throw-away layer in front of it. */
  overlay: { mayBeRefused: true },
  /** What serves an export as a plain file. */
  file: { mayBeRefused: true },
  /** The gateway is killed, and comes back some milliseconds later. */
  gateway: { mayBeRefused: true },
  /** libvirtd is killed, and comes back some milliseconds later. */
  libvirtd: { mayBeRefused: true },
};
export type Victim = keyof typeof VICTIMS;

const isVictim = (name: string | undefined): name is Victim => Object.hasOwn(VICTIMS, name ?? '');

export interface Fault {
  scenario: string;
  victim: Victim;
  detail: number | null;
  point: string;
}

export function faultText({ scenario, victim, detail, point }: Fault): string {
  return `${scenario}/${victim}${detail === null ? '' : `:${detail}`}/${point}`;
}

/** @throws for a text that is none */
export function parseFault(text: string): Fault {
  const [, scenario, victim, detail, point] = /^([^/]+)\/([a-z-]+)(?::(\d+))?\/(.+)$/.exec(text) ?? [];
  if (scenario === undefined || point === undefined || !isVictim(victim)) {
    throw new Error(
      `a fault is SCENARIO/VICTIM[:NUMBER]/POINT, and VICTIM one of ${Object.keys(VICTIMS).join(', ')}: ${text}`,
    );
  }
  scenarioOf(scenario);
  return { scenario, victim, detail: detail === undefined ? null : Number(detail), point };
}

/** What happens at the point. */
export function armingOf(fault: Fault, rig: Rig, tag: string): Arming {
  const harm = harmOf(fault, rig);
  const kill = 'kill' in VICTIMS[fault.victim];
  return { at: fault.point, tag, kill, ...(harm !== undefined && { harm }) };
}

/** By names of programs, and files of pids: the host's own pid namespace has none but its own. */
function harmOf({ victim, detail, scenario }: Fault, rig: Rig): string | undefined {
  const qemu = rig[scenarioOf(scenario).vm ?? 'live'].pid;
  const libvirtd = '$(cat /run/libvirtd.pid)';
  const gateway = `$(sed 's/.*"pid":\\([0-9]*\\).*/\\1/' /run/vmdiskd/gateway/lock.json)`;
  const later = (command: string) =>
    `setsid sh -c 'sleep ${(detail ?? 0) / 1000}; ${command}' >/dev/null 2>&1 </dev/null &`;
  switch (victim) {
    case 'qemu':
      return `kill -9 ${qemu} && echo qemu`;
    case 'qemu-nbd':
      return killServers('export');
    case 'overlay':
    case 'file':
      return killServers(victim);
    case 'libvirtd':
      return `kill -9 ${libvirtd} && echo libvirtd; ${later('libvirtd --daemon --pid-file /run/libvirtd.pid')}`;
    case 'gateway':
      return `kill -9 ${gateway} && echo gateway; ${later(`exec ${rig.gatewayCommand}`)}`;
    case 'kill-qemu-stalls':
      return `kill -STOP ${qemu}; ${later(`kill -CONT ${qemu}`)}`;
    case 'kill-libvirtd-stalls':
      return `kill -STOP ${libvirtd}; ${later(`kill -CONT ${libvirtd}`)}`;
    default:
      return undefined;
  }
}

/** By the name that the agent has started them under, the shells that are yet to become them included. */
function killServers(role: 'export' | 'overlay' | 'file'): string {
  const named = `tr '\\0' '\\n' <$pid/environ 2>/dev/null | grep -q '^VMDISKD_PROCESS=vmdiskd-${role}-'`;
  return `cd /proc; for pid in [0-9]*; do ${named} && kill -9 $pid && echo ${role}; done`;
}

/** Whether the victim is what serves an export, which then has to fail and no more. */
export function isServer(victim: Victim): victim is 'qemu-nbd' | 'overlay' | 'file' {
  return victim === 'qemu-nbd' || victim === 'overlay' || victim === 'file';
}

export function mannersOf({ victim, detail }: Fault): Manners {
  const manners = VICTIMS[victim];
  return {
    prompt: 'prompt' in manners,
    againAt: victim === 'kill-twice' ? detail : null,
    mayBeRefused: 'mayBeRefused' in manners,
  };
}
