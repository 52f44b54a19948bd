/**
 * The one thing of libvirt's own configuration that we have to know: where it has QEMU look for the certificates that it
 * shows to NBD servers. libvirt's API does not tell.
 */
import { readFile, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

export interface CertificateDirectory {
  readonly dir: string;
  /** Why it is that one, to follow its name in a sentence: `libvirt's default`. */
  readonly because: string;
}

const OF_NBD = '/etc/pki/libvirt-nbd';
const OF_ALL = '/etc/pki/qemu';

/** The file that libvirt's QEMU driver reads (src/qemu/qemu_conf.c, virQEMUDriverConfigNew: configBaseDir). */
export function qemuConfFile(uri: 'qemu:///system' | 'qemu:///session'): string {
  if (uri === 'qemu:///system') return '/etc/libvirt/qemu.conf';
  return join(process.env.XDG_CONFIG_HOME || join(homedir(), '.config'), 'libvirt/qemu.conf');
}

/**
 * libvirt's rule (src/qemu/qemu_conf.c, virQEMUDriverConfigLoadSpecificTLSEntry and virQEMUDriverConfigSetDefaults): what
 * `nbd_tls_x509_cert_dir` says; else /etc/pki/libvirt-nbd, where that is there; else `default_tls_x509_cert_dir`, which is
 * /etc/pki/qemu unless it is set. libvirt looks once, at its own start: since then it may have become another.
 * @param file libvirt's qemu.conf; one that cannot be read says nothing, to libvirt as to us
 */
export async function nbdCertificateDirectory(file: string): Promise<CertificateDirectory> {
  const conf = parseConf(await readFile(file, 'utf8').catch(() => ''));
  for (const key of ['nbd_tls_x509_cert_dir', 'default_tls_x509_cert_dir']) {
    const dir = conf.get(key);
    if (dir !== undefined) return { dir, because: `${key} in ${file}` };
    if (key.startsWith('nbd') && (await exists(OF_NBD)))
      return { dir: OF_NBD, because: 'which libvirt takes where it is there' };
  }
  return { dir: OF_ALL, because: "libvirt's default" };
}

/**
 * The strings of a libvirt configuration file. src/util/virconf.c: `key = "text"` or `'text'`, no escapes in it, the first
 * one of a key counts. Numbers and lists are left out.
 */
export function parseConf(text: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const line of text.split('\n')) {
    const [, key, , value] = /^\s*([A-Za-z0-9_.-]+)\s*=\s*("|')(.*?)\2/.exec(line) ?? [];
    if (key !== undefined && value !== undefined && !found.has(key)) found.set(key, value);
  }
  return found;
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
