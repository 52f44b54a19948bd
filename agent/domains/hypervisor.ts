import type { LibvirtClient } from '../libvirt/index.js';

/** Milliseconds for asking libvirt its version: a question that no VM can hold up. */
const ASK_MS = 2000;

/** Versions of libvirt and of the QEMU that it runs; null where it cannot be asked now. */
export interface HypervisorVersions {
  libvirt: string | null;
  qemu: string | null;
}

export async function hypervisorVersions(libvirt: LibvirtClient): Promise<HypervisorVersions> {
  const ask = (question: Promise<number>) => question.then(dotted, () => null);
  return {
    libvirt: await ask(libvirt.host.getLibVersion({ timeoutMs: ASK_MS })),
    qemu: await ask(libvirt.host.getVersion({ timeoutMs: ASK_MS })),
  };
}

/** libvirt writes versions as major * 1,000,000 + minor * 1,000 + release. */
function dotted(version: number): string {
  return `${Math.floor(version / 1_000_000)}.${Math.floor(version / 1000) % 1000}.${version % 1000}`;
}
