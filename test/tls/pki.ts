/** Certificates for tests, made with openssl: two CAs, a server, and clients. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';

export interface Pki {
  /** Directories as QEMU and libnbd want them: ca-cert.pem, client-cert.pem and client-key.pem. */
  client(name: string): string;
  /** The same for curl, as its options, with a POST of JSON. */
  curl(name: string): string[];
  /** Files for `[tls]` of the configuration. */
  readonly tls: { cert: string; key: string; clientCa: string };
  /** Writes a revocation list of the CA, which names that client and those before; returns its file. */
  revoke(name?: string): Promise<string>;
}

/** The clients: `appliance` and `other` come from the CA that is trusted, `stranger` from another of the same name. */
const CLIENTS = {
  appliance: {
    ca: 'ca',
    subject: '/C=DE/O=Example, Inc./CN=appliance',
    san: 'DNS:appliance.example,URI:spiffe://example/appliance',
  },
  other: { ca: 'ca', subject: '/O=Example, Inc./CN=other', san: 'DNS:other.example' },
  // One for each role that the tests give.
  observer: { ca: 'ca', subject: '/CN=observer', san: 'DNS:observer.example' },
  backup: { ca: 'ca', subject: '/CN=backup', san: 'DNS:backup.example' },
  restore: { ca: 'ca', subject: '/CN=restore', san: 'DNS:restore.example' },
  admin: { ca: 'ca', subject: '/CN=admin', san: 'DNS:admin.example' },
  stranger: {
    ca: 'wrong-ca',
    subject: '/C=DE/O=Example, Inc./CN=appliance',
    san: 'DNS:appliance.example,URI:spiffe://example/appliance',
  },
} as const;

/** Makes everything below `dir`. */
export async function makePki(dir: string): Promise<Pki> {
  mkdirSync(dir, { recursive: true });
  const openssl = (...args: string[]) => execa('openssl', args, { cwd: dir });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  for (const ca of ['ca', 'wrong-ca']) {
    const files = ['-keyout', `${ca}-key.pem`, '-out', `${ca}.pem`];
    await openssl('req', '-x509', ...key, ...files, '-days', '2', '-subj', '/CN=Test CA');
  }
  const issue = async (to: string, name: string, ca: string, subject: string, san: string, usage: string) => {
    mkdirSync(join(dir, to), { recursive: true });
    const [cert, keyFile, request] = ['cert.pem', 'key.pem', 'request.pem'].map(
      (file) => `${to}/${name}-${file}`,
    );
    writeFileSync(join(dir, `${to}/ext`), `subjectAltName=${san}\nextendedKeyUsage=${usage}\n`);
    await openssl('req', ...key, '-keyout', `${keyFile}`, '-out', `${request}`, '-subj', subject);
    const signed = ['-CA', `${ca}.pem`, '-CAkey', `${ca}-key.pem`, '-CAcreateserial', '-days', '2'];
    await openssl('x509', '-req', '-in', `${request}`, '-out', `${cert}`, ...signed, '-extfile', `${to}/ext`);
    await openssl('x509', '-in', 'ca.pem', '-out', `${to}/ca-cert.pem`);
  };
  await issue(
    'server',
    'server',
    'ca',
    '/CN=gateway',
    'DNS:gateway.example,DNS:localhost,IP:127.0.0.1',
    'serverAuth',
  );
  for (const [name, { ca, subject, san }] of Object.entries(CLIENTS)) {
    await issue(name, 'client', ca, subject, san, 'clientAuth');
  }
  writeFileSync(join(dir, 'index.txt'), '');
  writeFileSync(join(dir, 'number'), '01\n');
  return {
    client: (name) => join(dir, name),
    curl(name) {
      const [ca, cert, key] = ['ca-cert', 'client-cert', 'client-key'].map((file) =>
        join(dir, name, `${file}.pem`),
      );
      const files = ['--cacert', `${ca}`, '--cert', `${cert}`, '--key', `${key}`];
      return ['-sS', '--max-time', '100', ...files, '-H', 'content-type: application/json'];
    },
    tls: {
      cert: join(dir, 'server/server-cert.pem'),
      key: join(dir, 'server/server-key.pem'),
      clientCa: join(dir, 'ca.pem'),
    },
    async revoke(name) {
      const settings = ['[ca]', 'default_ca=own', '[own]', 'database=index.txt', 'crlnumber=number'];
      writeFileSync(
        join(dir, 'ca.cnf'),
        [...settings, 'default_md=sha256', 'default_crl_days=2', ''].join('\n'),
      );
      const ca = ['ca', '-config', 'ca.cnf', '-keyfile', 'ca-key.pem', '-cert', 'ca.pem'];
      if (name !== undefined) await openssl(...ca, '-revoke', `${name}/client-cert.pem`);
      await openssl(...ca, '-gencrl', '-out', 'crl.pem');
      return join(dir, 'crl.pem');
    },
  };
}
