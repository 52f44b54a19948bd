/**
 * The files with which QEMU opens NBD exports over TLS, looked at before it is sent there: what libvirt says of one that
 * is missing does not name it ("Software caused connection abort"), since a client without a certificate is in order to
 * QEMU and is turned away by the server. QEMU, crypto/tlscredsx509.c has the names.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError, type ErrorDetails } from '../errors.js';
import { type RunTool, ToolError } from '../host/process-tool.js';
import type { CertificateDirectory } from './qemu-conf.js';

/** What QEMU shows and whom it trusts, as PEM. */
export interface ClientCertificates {
  readonly ca: Buffer;
  readonly crl: Buffer | undefined;
  readonly cert: Buffer;
  /** Null: it has a passphrase, which is a secret of libvirt's (`nbd_tls_x509_secret_uuid`). */
  readonly key: Buffer | null;
  /** The certificate's subject and alternative names, for messages. */
  readonly names: string;
}

const CA = 'ca-cert.pem';
const CERT = 'client-cert.pem';
const KEY = 'client-key.pem';
const CRL = 'ca-crl.pem';
const PURPOSE: Readonly<Record<string, string>> = {
  [CA]: "the CA of the gateways' certificates",
  [CERT]: 'the certificate that this host shows to gateways',
  [KEY]: `the key of ${CERT}`,
};
const CHECK_MS = 10_000;

/**
 * Reads the certificates and finds what is wrong with them.
 * @param user the account that QEMU runs as
 * @param about what the error is about
 * @param run `ServerProcesses.runOnHost`
 * @throws AgentError `HotplugDiskFailed`, which names the file and what belongs there; it may be asked again
 */
export async function readClientCertificates(
  { dir, because }: CertificateDirectory,
  user: string,
  about: ErrorDetails,
  run: RunTool,
  signal: AbortSignal,
): Promise<ClientCertificates> {
  const fault = (name: string, what: string, remedy: string, cause?: unknown) =>
    new AgentError(
      'HotplugDiskFailed',
      `QEMU cannot open the drive, as ${join(dir, name)} ${what}; ${remedy}, then try again. libvirt has it look in ${dir} (${because}).`,
      { ...about, cause },
    );
  const read = async (name: string): Promise<Buffer> => {
    try {
      return await readFile(join(dir, name));
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException;
      const isMissing = code === 'ENOENT' || code === 'ENOTDIR';
      const remedy = `put ${PURPOSE[name]} there, readable for ${user}`;
      throw fault(name, isMissing ? 'is missing' : `cannot be read (${message})`, remedy, cause);
    }
  };
  const [ca, cert, key] = [await read(CA), await read(CERT), await read(KEY)];
  const crl = await readFile(join(dir, CRL)).catch(() => undefined);
  const unreadable = await firstUnreadable(
    user,
    [CA, CERT, KEY].map((name) => join(dir, name)),
    run,
    signal,
  );
  if (unreadable !== undefined) {
    const name = unreadable.slice(dir.length).replace(/^\//, '');
    throw fault(name, `is not readable for ${user}`, 'change its owner or mode, or that of its directory');
  }
  for (const name of [CA, CERT]) {
    for (const pem of certificatesOf(name === CA ? ca : cert)) {
      const wrong = faultOf(pem, Date.now());
      if (wrong !== undefined) throw fault(name, wrong, `put ${PURPOSE[name]} there`);
    }
  }
  const own = new X509Certificate(cert);
  const names = [own.subject.replaceAll('\n', ', '), own.subjectAltName].filter(Boolean).join(', ');
  const opened = openKey(key);
  if (opened === undefined) throw fault(KEY, 'is not a key in PEM', `put ${PURPOSE[KEY]} there`);
  if (opened !== null && !own.checkPrivateKey(opened))
    throw fault(KEY, `is not the key of ${CERT}`, 'put both there as they were made');
  return { ca, crl, cert, key: opened === null ? null : key, names };
}

/**
 * Looks as that account does, with its groups: access control lists and the modes of all directories on the way count.
 * Undefined where it can read them all, and where nobody can tell (we are not root, or there is no such account).
 */
async function firstUnreadable(
  user: string,
  files: readonly string[],
  run: RunTool,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (process.geteuid?.() !== 0) return undefined;
  const look = 'for file; do [ -r "$file" ] || { echo "$file"; exit; }; done';
  const as = [`--reuid=${user}`, '--init-groups', '--', 'sh', '-c', look, 'sh'];
  const gid = await primaryGroup(user);
  if (gid === undefined) return undefined;
  try {
    const wait = { timeoutMs: CHECK_MS, maxOutput: 65_536, signal };
    const { stdout } = await run('setpriv', [`--regid=${gid}`, ...as, ...files], wait);
    return stdout.trim() || undefined;
  } catch (error) {
    if (error instanceof ToolError) return undefined;
    throw error;
  }
}

/** passwd(5): the fourth field. */
async function primaryGroup(user: string): Promise<string | undefined> {
  for (const line of (await readFile('/etc/passwd', 'utf8')).split('\n')) {
    const [name, , , gid] = line.split(':');
    if (name === user) return gid;
  }
  return undefined;
}

/** The certificates of a PEM file, one by one; the file itself where there is none in it. */
function certificatesOf(pem: Buffer): string[] {
  const text = pem.toString('latin1');
  return text.match(/-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.*?-----END [A-Z0-9 ]+-----/gs) ?? [text];
}

function faultOf(pem: string, now: number): string | undefined {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(pem);
  } catch {
    return 'is not a certificate in PEM';
  }
  if (Date.parse(certificate.validTo) < now) return `expired on ${certificate.validTo}`;
  if (Date.parse(certificate.validFrom) > now) return `is not valid before ${certificate.validFrom}`;
  return undefined;
}

/** Null: it has a passphrase. Undefined: it is no key. */
function openKey(pem: Buffer): KeyObject | null | undefined {
  if (/ENCRYPTED/.test(pem.toString('latin1'))) return null;
  try {
    return createPrivateKey(pem);
  } catch {
    return undefined;
  }
}
