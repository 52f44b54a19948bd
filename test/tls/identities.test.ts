/** What a certificate says of who shows it, against what openssl says of the same certificate. */
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import t from 'tap';
import { BadIdentity, canonicalIdentity, identitiesOf, identityText } from '../../agent/tls/identities.js';

const dir = mkdtempSync('/tmp/vmd-gw-');
t.teardown(() => rmSync(dir, { recursive: true, force: true }));

/** A certificate of that subject, and the subject as openssl writes it by RFC 2253. */
async function certificate(subject: string, ...extensions: string[]) {
  const file = join(dir, 'cert.pem');
  const key = [
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-keyout',
    join(dir, 'key.pem'),
  ];
  const more = extensions.flatMap((extension) => ['-addext', extension]);
  await execa('openssl', [
    'req',
    '-x509',
    ...key,
    '-out',
    file,
    '-subj',
    subject,
    '-utf8',
    '-multivalue-rdn',
    ...more,
  ]);
  const told = await execa('openssl', ['x509', '-in', file, '-noout', '-subject', '-nameopt', 'RFC2253']);
  return { cert: new X509Certificate(readFileSync(file)), name: told.stdout.replace(/^subject=/, '') };
}

t.test('subjects are what openssl calls them, however they are escaped', async (t) => {
  for (const subject of [
    '/CN=appliance',
    '/C=DE/O=Example, Inc./CN=appliance',
    '/DC=example/DC=org/OU=a+CN=x\\+y',
    '/O=\\ #"<ü>;\\\\ =/CN=two  blanks/emailAddress=u@x.de',
    '/O=a\nCN=forged/CN=line',
    '/CN=a,O=b',
    '/UID=u/serialNumber=7/street=s/2.5.4.97=NTRDE-1',
  ]) {
    const { cert, name } = await certificate(subject);
    t.ok(identitiesOf(cert).has(canonicalIdentity(`subject:${name}`)), name);
    t.equal(identitiesOf(cert).size, 1);
    const [canonical = ''] = identitiesOf(cert);
    t.equal(canonicalIdentity(identityText(canonical)), canonical, 'what is told can be given back');
  }
  t.equal(
    identityText(canonicalIdentity('subject:cn=appliance, O=Example')),
    'subject:CN=appliance,O=Example',
  );
  const { cert } = await certificate('/O=Example, Inc./CN=appliance');
  for (const other of [
    'subject:CN=appliance',
    'subject:O=Example\\, Inc.,CN=appliance',
    'subject:CN=Appliance,O=Example\\, Inc.',
    'subject:CN=appliance,O=Example,O=Inc.',
    'dns:appliance',
  ]) {
    t.notOk(identitiesOf(cert).has(canonicalIdentity(other)), `not ${other}`);
  }
  const forged = await certificate('/CN=a,O=b');
  t.notOk(
    identitiesOf(forged.cert).has(canonicalIdentity('subject:CN=a,O=b')),
    'one value is not two attributes',
  );
});

t.test('types have more than one name', async (t) => {
  const name = canonicalIdentity('subject:CN=a,EMAIL=b@c');
  t.equal(canonicalIdentity('subject:2.5.4.3=a,1.2.840.113549.1.9.1=b@c'), name);
  t.equal(canonicalIdentity('subject:cn=a, emailAddress=b@c'), name);
  t.equal(canonicalIdentity('subject:OU=b+CN=a'), canonicalIdentity('subject:CN=a+OU=b'));
  t.not(canonicalIdentity('subject:OU=b,CN=a'), canonicalIdentity('subject:CN=a,OU=b'));
});

t.test('alternative names: whole, DNS without case, and none that hides in another', async (t) => {
  const { cert } = await certificate(
    '/CN=a',
    'subjectAltName=DNS:Foo.Example,URI:spiffe://Example/a,IP:127.0.0.1,email:u@x.de,DNS:*.wild.example',
  );
  t.strictSame([...identitiesOf(cert)].slice(1), [
    'dns:foo.example',
    'uri:spiffe://Example/a',
    'dns:*.wild.example',
  ]);
  t.equal(canonicalIdentity('dns:FOO.example'), 'dns:foo.example');
  t.notOk(identitiesOf(cert).has(canonicalIdentity('dns:x.wild.example')), 'compared, and not matched');
  t.notOk(identitiesOf(cert).has(canonicalIdentity('uri:spiffe://example/a')));
  const hidden = { subject: 'CN=a', subjectAltName: 'URI:"http://a, DNS:b.example", DNS:c.example' };
  t.strictSame([...identitiesOf(hidden)].slice(1), ['uri:http://a, DNS:b.example', 'dns:c.example']);
});

t.test('what nobody can read is refused', async (t) => {
  for (const bad of [
    '',
    'appliance',
    'cn:a',
    'dns:',
    'subject:',
    'subject:a',
    'subject:=a',
    'subject:CN=#0c0161',
    'subject:CN=a\\q',
    'subject:CN="appliance",O="Example"',
  ]) {
    t.throws(() => canonicalIdentity(bad), BadIdentity, bad);
  }
});
