import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { type Confinement, unprivilegedAccount } from '../host/confine.js';
import { runTool, ToolError } from '../host/process-tool.js';

/**
 * What this host allows: to confine takes root and mount namespaces, which a bare container may not have.
 * @param user the account that programs are to run as
 * @param run the directory of run-time files
 */
export async function findConfinement(user: string, run: string, log: Logger): Promise<Confinement | null> {
  if (process.geteuid?.() !== 0) return null;
  const root = join(run, 'root');
  await mkdir(root, { recursive: true, mode: 0o755 });
  const confinement = { ...(await unprivilegedAccount(user)), root };
  try {
    const view = { confinement, files: [] };
    await runTool('qemu-img', ['--version'], { timeoutMs: 10_000, maxOutput: 65_536, confined: view });
    return confinement;
  } catch (error) {
    log.warn(
      { reason: error instanceof ToolError ? error.stderr : error },
      'qemu-nbd and qemu-img run as root and see the whole host: they cannot be confined here',
    );
    return null;
  }
}
