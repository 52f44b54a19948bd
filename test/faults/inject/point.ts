/** Points: what the daemon under test passes, counted by name, and the fault at the armed one. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';

/** When what happens. */
export interface Arming {
  /** `NAME@N`, the Nth passing of that point from the arming on; or the Nth passing of any; null: names alone. */
  at: string | number | null;
  /** A shell command that does harm to something else. */
  harm?: string;
  /** Whether the daemon itself is killed, after that. */
  kill?: boolean;
  /** What the names leave out: what makes the ids of one run unique. */
  tag?: string;
}

// As they are before anything is wrapped.
const kill = process.kill.bind(process);
const { writeSync } = fs;
const trace = fs.openSync(process.env.FAULTS_TRACE ?? '/dev/null', 'a');

let armed: Arming = JSON.parse(process.env.FAULTS_ARM ?? '{"at":null}');
let passed = 0;
let byName = new Map<string, number>();

/** From now on it is counted anew. */
export function arm(arming: Arming): void {
  armed = arming;
  passed = 0;
  byName = new Map();
}

/**
 * The daemon passes a point. Where that is the armed one, the fault happens now, while nothing else of the daemon runs.
 * @param half does half of the deed, before the daemon is killed in the middle of it
 */
export function point(name: string, half?: () => void): void {
  passed += 1;
  const nth = (byName.get(name) ?? 0) + 1;
  byName.set(name, nth);
  const full = `${name}@${nth}`;
  writeSync(trace, `${full}\n`);
  if (armed.at !== full && armed.at !== passed) return;
  const { harm } = armed;
  armed = { ...armed, at: null };
  if (harm !== undefined) {
    const { stdout } = spawnSync('/bin/sh', ['-c', harm], { encoding: 'utf8' });
    writeSync(trace, `HARMED ${stdout.trim().replaceAll('\n', ' ')}\n`);
  }
  if (armed.kill !== true) return;
  half?.();
  writeSync(trace, `KILLED ${full}\n`);
  kill(process.pid, 'SIGKILL');
}

/** The same name in every run: without ids that are made up, random parts, and the long beginnings of paths. */
export function plain(text: string): string {
  return (armed.tag ? text.replaceAll(armed.tag, '') : text)
    .replace(/^\/run\/vmdiskd\b/, 'run')
    .replace(/^\/var\/lib\/vmdiskd\b/, 'state')
    .replace(/^\/var\/lib\/libvirt\/images\b/, 'images')
    .replace(/^\/proc\/self\/fd\/\d+\b/, 'held')
    .replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, 'UUID')
    .replace(/\b[0-9a-f]{12,64}\b/g, 'HASH')
    .replace(/\.[0-9a-f]{8}\.tmp\b/, '.tmp')
    .replace(/\.(of|left)-\d+$/, '.$1-PID');
}
