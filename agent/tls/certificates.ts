import { constants } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { SecureContextOptions } from 'node:tls';

/** PEM files, as `[tls]` of the configuration names them; empty: none. */
export interface CertificateFiles {
  readonly cert: string;
  readonly key: string;
  readonly clientCa: string;
  readonly crl: string;
}

/**
 * TLS 1.3, and 1.2 for clients that need it, with forward secrecy throughout. TLS_AES_128_GCM_SHA256 comes first and the
 * order is ours: OpenSSL takes a pre-shared key of the old callback for one of SHA-256 (ssl/statem/extensions_srvr.c),
 * and GnuTLS would rather have ChaCha20, which is slower where the processor has AES.
 */
const CIPHERS = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
];

/** The certificates that the configuration names; none where it names none. @throws Error that says which file cannot be read */
export function readCertificates({ cert, key, clientCa, crl }: CertificateFiles): SecureContextOptions {
  if (cert === '' && key === '' && clientCa === '') return {};
  for (const [name, file] of Object.entries({ cert, key, clientCa })) {
    if (file === '') throw new Error(`[tls] ${name} is not set: cert, key and clientCa go together`);
  }
  const read = (file: string) => readFileSync(file);
  return {
    cert: read(cert),
    key: read(key),
    ca: read(clientCa),
    ...(crl !== '' && { crl: read(crl) }),
  };
}

/**
 * What every TLS server of this host has.
 * @param sessions names the server in its sessions: one of another is not taken up here
 * @param moreCiphers for clients of one server alone
 */
export function serverSettings(
  certificates: SecureContextOptions,
  sessions: string,
  moreCiphers: readonly string[] = [],
): SecureContextOptions {
  return {
    ...certificates,
    minVersion: 'TLSv1.2',
    ciphers: [...CIPHERS, ...moreCiphers].join(':'),
    honorCipherOrder: true,
    // A session that is taken up again verifies nothing anew: none is given out.
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
    sessionIdContext: sessions,
  };
}
