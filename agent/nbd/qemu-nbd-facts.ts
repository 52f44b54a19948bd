import { runTool } from '../host/process-tool.js';

/** What the installed qemu-nbd is, and can do. */
export interface QemuNbdFacts {
  /** Null where it is not installed. */
  version: string | null;
  bitmaps: boolean;
  allocationDepth: boolean;
}

const limits = { timeoutMs: 5000, maxOutput: 64 * 1024 };

/** Asks qemu-nbd itself, since distributions backport and packages are upgraded under a running daemon. */
export async function qemuNbdFacts(): Promise<QemuNbdFacts> {
  try {
    const { stdout: banner } = await runTool('qemu-nbd', ['--version'], limits);
    const { stdout: help } = await runTool('qemu-nbd', ['--help'], limits);
    return {
      version: /qemu-nbd (\S+)/.exec(banner)?.[1] ?? null,
      bitmaps: help.includes('--bitmap'),
      allocationDepth: help.includes('--allocation-depth'),
    };
  } catch {
    return { version: null, bitmaps: false, allocationDepth: false };
  }
}
