import { fileURLToPath } from 'node:url';
import { execa } from 'execa';

const BUILD_DEADLINE_MS = 600_000;
const SCRIPT = fileURLToPath(new URL('guest-image/build.sh', import.meta.url));

/** Kernel and initramfs of the test guests, as outside paths. */
export interface GuestImage {
  kernel: string;
  initramfs: string;
}

/** The guest image from the cache, built first where it is missing or its inputs have changed (needs apt). */
export async function guestImage(): Promise<GuestImage> {
  const { stdout } = await execa('bash', [SCRIPT], { timeout: BUILD_DEADLINE_MS });
  const dir = stdout.trim().split('\n').at(-1);
  return { kernel: `${dir}/vmlinuz`, initramfs: `${dir}/initramfs.cpio` };
}
