import { checkedCommand } from './checked-command.js';
import { type ConfinedView, confinedCommand } from './confine.js';
import { plainlyNamed } from './plain-names.js';
import { findTool, runCommand, runTool, type ToolOptions } from './process-tool.js';
import { confinedProperties } from './unit-properties.js';
import { runInUnit } from './unit-tool.js';

/** Runs a short-lived program that parses images to its end, as `runTool` does, with a view of the host of its own. */
export async function runConfined(
  view: ConfinedView | undefined,
  tool: string,
  args: readonly string[],
  options: ToolOptions,
): Promise<{ stdout: string; stderr: string }> {
  if (view === undefined) return runTool(tool, args, options);
  if (view.confinement.by === 'units') {
    const command = (program: string) => checkedCommand(view.files, program, args);
    return plainlyNamed(view, (named) => runInUnit(tool, args, confinedProperties(named), options, command));
  }
  const { program, args: all } = confinedCommand(view, await findTool(tool), args);
  return runCommand(tool, { program: await findTool(program), args: all }, args, options);
}
