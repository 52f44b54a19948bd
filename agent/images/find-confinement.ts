import { mkdir, readdir, rm, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Logger } from 'pino';
import { type Confinement, unprivilegedAccount } from '../host/confine.js';
import { runConfined } from '../host/confined-tool.js';
import { linksPrefix } from '../host/plain-names.js';
import { ToolError } from '../host/process-tool.js';

/**
 * What this host allows: to confine takes root and mount namespaces, which a bare container may not have.
 * @param by who is to make the confined programs' view
 * @param user the account that programs are to run as
 * @param run the directory of run-time files
 */
export async function findConfinement(
  by: Confinement['by'],
  user: string,
  run: string,
  log: Logger,
): Promise<Confinement | null> {
  if (process.geteuid?.() !== 0) return null;
  const root = join(run, 'root');
  await mkdir(root, { recursive: true, mode: 0o755 });
  if (by === 'units') await makeRoot(root);
  const confinement = { by, ...(await unprivilegedAccount(user)), root };
  try {
    const limits = { timeoutMs: 30_000, maxOutput: 65_536 };
    await runConfined({ confinement, files: [] }, 'qemu-img', ['--version'], limits);
    return confinement;
  } catch (error) {
    const reason = error instanceof ToolError ? error.message : error;
    if (by === 'units') {
      log.error({ reason }, 'systemd runs nothing for this daemon: see journalctl, and that dbus is there');
      throw error;
    }
    log.warn(
      { reason },
      'qemu-nbd and qemu-img run as root and see the whole host: they cannot be confined here',
    );
    return null;
  }
}

/** What systemd mounts upon, and the links that lead into /usr on a host whose /usr is merged (hier(7)). */
async function makeRoot(root: string): Promise<void> {
  const beside = dirname(root);
  for (const name of await readdir(beside)) {
    if (name.startsWith(linksPrefix)) await rm(join(beside, name), { recursive: true, force: true });
  }
  for (const name of ['dev', 'home', 'images', 'proc', 'root', 'run', 'sys', 'tmp', 'usr', 'var/tmp']) {
    await mkdir(join(root, name), { recursive: true, mode: 0o755 });
  }
  for (const name of ['bin', 'lib', 'lib64', 'sbin']) {
    await symlink(join('usr', name), join(root, name)).catch(ignoreExisting);
  }
}

function ignoreExisting(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EEXIST') throw error;
}
