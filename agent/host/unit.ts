/** Looking at and ending transient units of systemd, by systemctl(1). */
import { runTool, ToolError } from './process-tool.js';
import { poll, within } from './process-wait.js';
import { unitFile } from './unit-properties.js';

/** For one word with systemd, which answers at once unless it hangs. */
const limits = { timeoutMs: 30_000, maxOutput: 65_536 };
/** For ending what is left of a failure: past the caller's own deadline, perhaps. */
const END_MS = 10_000;

/** The main process of a unit; undefined where there is no such unit, or none is in it. */
export async function mainPid(name: string, signal?: AbortSignal): Promise<number | undefined> {
  const pid = Number(await show(name, 'MainPID', signal));
  return pid > 0 ? pid : undefined;
}

/** Sends a signal to a unit's main process. Success where there is none. */
export async function signalUnit(
  name: string,
  what: 'SIGTERM' | 'SIGKILL',
  signal: AbortSignal,
): Promise<void> {
  const args = ['kill', '--kill-whom=main', `--signal=${what}`, unitFile(name)];
  try {
    await runTool('systemctl', args, { ...limits, signal });
  } catch (error) {
    if (!(error instanceof ToolError) || (await mainPid(name, signal)) !== undefined) throw error;
  }
}

/**
 * Ends whatever runs in a unit, at once, after a failure, which is what its caller is told: that it cannot be ended is
 * swallowed here. A server is on record by its name, and is taken back; a tool has a time of its own.
 */
export async function endUnit(name: string): Promise<void> {
  await within(`The end of ${name}`, { timeoutMs: END_MS }, async (signal) => {
    const args = ['kill', '--signal=SIGKILL', unitFile(name)];
    await runTool('systemctl', args, { ...limits, signal }).catch(() => {});
    await untilGone(name, signal);
  }).catch(() => {});
}

/** Returns once the name is free: systemd forgets a unit a moment after its last process. */
export async function untilGone(name: string, signal: AbortSignal): Promise<void> {
  await poll(signal, async () => (await show(name, 'LoadState', signal)) === 'not-found' || undefined);
}

async function show(name: string, property: string, signal: AbortSignal | undefined): Promise<string> {
  const args = ['show', `--property=${property}`, '--value', unitFile(name)];
  return (await runTool('systemctl', args, { ...limits, signal })).stdout.trim();
}
