import { mkdtemp, rm, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { ConfinedView } from './confine.js';

/** What systemd takes as it stands in a list of paths; quotes and tabs it loses on the way to what mounts (systemd 257). */
const plain = /^[\w./+@,=-]+$/;

/**
 * Runs `work` with a view in which each file has a name that systemd can be told: its own, or that of a link to it which
 * lasts as long as `work`. A link is as good as the name, since what it leads to is compared with the file that was checked.
 */
export async function plainlyNamed<T>(
  view: ConfinedView,
  work: (view: ConfinedView) => Promise<T>,
): Promise<T> {
  if (view.files.every(({ path }) => plain.test(path))) return work(view);
  const links = await mkdtemp(join(dirname(view.confinement.root), linksPrefix));
  try {
    const files: ConfinedView['files'][number][] = [];
    for (const [i, file] of view.files.entries()) {
      const path = plain.test(file.path) ? file.path : join(links, String(i));
      if (path !== file.path) await symlink(file.path, path);
      files.push({ ...file, path });
    }
    return await work({ ...view, files });
  } finally {
    await rm(links, { recursive: true, force: true });
  }
}

/** Directories of links begin with it, beside the confined programs' root; a daemon that was killed leaves them. */
export const linksPrefix = 'names-';
