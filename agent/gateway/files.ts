import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

/** What daemon and gateway share, below the directory of run-time files. */
export function gatewayFiles(run: string): { dir: string; entries: string; socket: string } {
  const dir = join(run, 'gateway');
  return { dir, entries: join(dir, 'exports'), socket: join(dir, 'gateway.sock') };
}

/** Makes the directories, for whoever of the two comes first. Nobody else may look into them: the keys are there. */
export async function makeGatewayDirectory(run: string): Promise<void> {
  const { dir, entries } = gatewayFiles(run);
  await mkdir(run, { recursive: true, mode: 0o755 });
  for (const path of [dir, entries]) await mkdir(path, { recursive: true, mode: 0o700 });
}
