/** Looking at and ending transient units of systemd, by systemctl(1). */
import { runTool, ToolError } from './process-tool.js';
import { poll, within } from './process-wait.js';
import { unitFile } from './unit-properties.js';

const limits = { timeoutMs: 30_000, maxOutput: 65_536 };

/** The main process of a unit; undefined where there is no such unit, or none is in it. */
export async function mainPid(name: string): Promise<number | undefined> {
  const pid = Number(await show(name, 'MainPID'));
  return pid > 0 ? pid : undefined;
}

/** Sends a signal to a unit's main process. Success where there is none. */
export async function signalUnit(name: string, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  try {
    await runTool('systemctl', ['kill', '--kill-whom=main', `--signal=${signal}`, unitFile(name)], limits);
  } catch (error) {
    if (!(error instanceof ToolError) || (await mainPid(name)) !== undefined) throw error;
  }
}

/** Ends whatever runs in a unit, at once, and returns when it is gone. Success where there is none. */
export async function endUnit(name: string): Promise<void> {
  try {
    await runTool('systemctl', ['kill', '--signal=SIGKILL', unitFile(name)], limits);
  } catch (error) {
    if (!(error instanceof ToolError)) throw error;
  }
  await within(`The end of ${name}`, limits, (signal) => untilGone(name, signal));
}

/** Returns once the name is free: systemd forgets a unit a moment after its last process. */
export async function untilGone(name: string, signal: AbortSignal): Promise<void> {
  await poll(signal, async () => (await show(name, 'LoadState')) === 'not-found' || undefined);
}

async function show(name: string, property: string): Promise<string> {
  const args = ['show', `--property=${property}`, '--value', unitFile(name)];
  return (await runTool('systemctl', args, limits)).stdout.trim();
}
