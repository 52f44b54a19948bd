/** Deeds on processes: their start, the line that opens a server's gate, their end, signals. */
import childProcess, { type ChildProcess } from 'node:child_process';
import { basename } from 'node:path';
import { point } from './point.js';

/** Tools that only look. */
const LOOKS = /^(qemu-img (info|check|measure|map)|stat\b|\S+ --?(version|help)\b)/;

/** Where a program that is confined or limited stands in what is run. */
const QEMU_TOOL = /^\/(usr\/)?bin\/qemu-(nbd|img)$/;

/** `qemu-img bitmap --add`; of a server, which a shell becomes, the program alone, and whether it is a throw-away layer's. */
function nameOf(file: string, args: readonly string[]): string {
  const at = args.findIndex((one) => QEMU_TOOL.test(one));
  if (file === '/bin/sh') {
    const layer = args[2]?.startsWith('vmdiskd-overlay-') ? 'overlay ' : '';
    return `${layer}${basename(args[at === -1 ? 4 : at] ?? 'sh')}`;
  }
  if (at !== -1) return nameOf(args[at] ?? '', args.slice(at + 1));
  const limited = basename(file) === 'prlimit' ? args.indexOf('--') : -1;
  if (limited !== -1) return nameOf(args[limited + 1] ?? '', args.slice(limited + 2));
  const [verb = '', ...rest] = args;
  const options = rest.filter((one) => /^--[a-z]+$/.test(one));
  return [basename(file), verb, ...options].join(' ').trim();
}

/** To be followed by `syncBuiltinESMExports`. */
export function wrapProcesses(): void {
  const { spawn } = childProcess;
  const wrapped = (file: string, args: readonly string[], options: object): ChildProcess => {
    const name = nameOf(file, args);
    if (LOOKS.test(name)) return spawn(file, args, options);
    point(`before spawn ${name}`);
    const child = spawn(file, args, options);
    point(`after spawn ${name}`);
    child.once('exit', () => point(`exit ${name}`));
    if (file === '/bin/sh' && child.stdin !== null) wrapGate(child.stdin, name);
    return child;
  };
  childProcess.spawn = wrapped as typeof spawn;

  const { kill } = process;
  process.kill = (pid, signal) => {
    if (signal === 0) return kill.call(process, pid, signal);
    point(`before signal ${signal}`);
    const sent = kill.call(process, pid, signal);
    point(`after signal ${signal}`);
    return sent;
  };
}

function wrapGate(stdin: NonNullable<ChildProcess['stdin']>, name: string): void {
  const end = stdin.end as (...args: unknown[]) => typeof stdin;
  stdin.end = ((...args: unknown[]) => {
    point(`before opening the gate of ${name}`);
    const result = end.apply(stdin, args);
    point(`after opening the gate of ${name}`);
    return result;
  }) as typeof stdin.end;
}
