import { lstat } from 'node:fs/promises';

/** Whether systemd is this host's first process: sd_booted(3). */
export async function isSystemdBooted(): Promise<boolean> {
  const stats = await lstat('/run/systemd/system').catch(() => undefined);
  return stats?.isDirectory() === true;
}
