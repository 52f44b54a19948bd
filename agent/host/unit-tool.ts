import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import { findTool, runCommand, ToolError, type ToolOptions } from './process-tool.js';
import { endUnit } from './unit.js';
import { type Properties, systemdRunArguments } from './unit-properties.js';

/** How late the start of a unit may be whose systemd-run was cut off. */
const LATE_MS = 500;

/** What a tool has of the host at most, beside what its caller says. */
const most: Properties = ['TasksMax=64', 'LimitCORE=0'];

/**
 * Runs a short-lived program to its end, like `runTool`, in a transient unit of its own.
 * @param command what to start there; by default the program with its arguments
 */
export async function runInUnit(
  tool: string,
  args: readonly string[],
  properties: Properties,
  options: ToolOptions,
  command: (program: string) => readonly string[] = (program) => [program, ...args],
): Promise<{ stdout: string; stderr: string }> {
  const { memory, ...rest } = options;
  const seconds = Math.ceil(options.timeoutMs / 1000);
  const all = [
    ...most,
    ...properties,
    `LimitCPU=${seconds}`,
    // Should nobody be left to end it.
    `RuntimeMaxSec=${seconds + 5}`,
    ...(memory === undefined ? [] : [`LimitAS=${memory}`]),
  ];
  const name = `vmdiskd-tool-${randomUUID()}`;
  const unit = {
    name,
    properties: all,
    options: ['--pipe', '--wait', `--description=${tool} of vmdiskd`],
  };
  const run = systemdRunArguments(unit, command(await findTool(tool)));
  try {
    return await runCommand(tool, { program: await findTool('systemd-run'), args: run }, args, rest);
  } catch (error) {
    // Whoever waited for it is gone, and it is not. What systemd-run asked for may come after this by way of D-Bus, so it is
    // looked again.
    if (!(error instanceof ToolError) || error.exitCode === undefined) {
      await endUnit(name);
      await sleep(LATE_MS);
      await endUnit(name);
    }
    throw error;
  }
}
