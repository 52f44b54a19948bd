/** The certificate that QEMU of a private host shows to gateways, where libvirt's settings have it look. */
import { appendFileSync, chmodSync, chownSync, copyFileSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { groupId } from '../host/accounts.js';
import type { Host } from '../host/host.js';
import type { Pki } from './pki.js';

/** Puts that of a client in place and has libvirtd, which looks at its settings when it starts, begin anew. @returns the directory */
export async function installQemuCertificate(host: Host, pki: Pki, client: string): Promise<string> {
  const directory = join(host.dir, 'nbd-certificates');
  showQemuCertificate(host, directory, pki, client);
  appendFileSync(join(host.dir, 'etc/libvirt/qemu.conf'), `nbd_tls_x509_cert_dir = "${directory}"\n`);
  await host.killLibvirtd('SIGTERM');
  await host.startLibvirtd();
  return directory;
}

/** Puts the files of a client there, whole and readable for QEMU. */
export function showQemuCertificate(host: Host, directory: string, pki: Pki, client: string): void {
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { mode: 0o755 });
  for (const file of ['ca-cert.pem', 'client-cert.pem', 'client-key.pem']) {
    const to = join(directory, file);
    copyFileSync(join(pki.client(client), file), to);
    chmodSync(to, 0o640);
    chownSync(to, 0, groupId(host.dir, 'libvirt-qemu'));
  }
}
