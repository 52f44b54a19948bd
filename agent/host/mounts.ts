import { readFile } from 'node:fs/promises';

import { type RunTool, ToolError } from './process-tool.js';
import { type Wait, within } from './process-wait.js';

/** Mounts on top of one another that are taken off; a path of ours has one, or after a race two. */
const mostLayers = 16;

/**
 * The types of the file systems that are mounted at exactly this path, the lowest first, as a process sees it: by
 * default this daemon, in its mount namespace. Read from the kernel's list and not by stat(2): that would ask the file
 * system, and one whose server hangs (FUSE) answers nobody and lets nobody go, so that four such looks would hold all of
 * Node's threads for good.
 * @param path absolute, without links or `..`
 */
export async function mountsAt(path: string, pid: 'self' | '1' = 'self'): Promise<string[]> {
  const types: string[] = [];
  for (const line of (await readFile(`/proc/${pid}/mountinfo`, 'utf8')).split('\n')) {
    // proc(5): id, parent, device, root, mount point, options, optional fields, `-`, type, source, options.
    const fields = line.split(' ');
    const type = fields[fields.indexOf('-', 6) + 1];
    if (type !== undefined && fields[4] !== undefined && unescaped(fields[4]) === path) types.push(type);
  }
  return types;
}

/**
 * Takes off all that is mounted at that path: from the tree at once, also while somebody has it open; success where
 * there is nothing. Whoever serves it has to be dead by then, or to be one that answers.
 * @param run `ServerProcesses.runOnHost`
 */
export async function detachMounts(path: string, run: RunTool, wait: Wait): Promise<void> {
  await within(`Unmounting ${path}`, wait, async (signal) => {
    for (let layer = 0; (await mountsAt(path)).length > 0; layer += 1) {
      if (layer === mostLayers) throw new Error(`${path} is still a mount point after ${layer} umounts.`);
      // Lazy: umount(8) then does not look at the file system itself either. Without a type's own helper, and without
      // following links.
      const args = ['--lazy', '--internal-only', '--no-canonicalize', path];
      try {
        await run('umount', args, { timeoutMs: wait.timeoutMs, signal, maxOutput: 64 * 1024 });
      } catch (error) {
        // Its server has taken it off in the meantime, perhaps.
        if (!(error instanceof ToolError) || (await mountsAt(path)).length > 0) throw error;
      }
    }
  });
}

/** The kernel writes blank, tab, newline and backslash as three octal digits. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_all, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}
