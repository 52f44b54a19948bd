/** The identities that a client's certificate bears, in a form in which they can be compared as text. */
import type { X509Certificate } from 'node:crypto';

/** An identity that a caller has written and nobody can read. */
export class BadIdentity extends Error {
  override readonly name = 'BadIdentity';
}

/**
 * Names of attribute types: those of RFC 4514, section 3, and two more that certificates have, each with what else it is
 * called (a dotted OID; GnuTLS's word for an e-mail address).
 */
const types = new Map(
  Object.entries({
    CN: ['2.5.4.3'],
    L: ['2.5.4.7'],
    ST: ['2.5.4.8'],
    O: ['2.5.4.10'],
    OU: ['2.5.4.11'],
    C: ['2.5.4.6'],
    STREET: ['2.5.4.9'],
    DC: ['0.9.2342.19200300.100.1.25'],
    UID: ['0.9.2342.19200300.100.1.1'],
    SERIALNUMBER: ['2.5.4.5'],
    EMAILADDRESS: ['1.2.840.113549.1.9.1', 'EMAIL', 'E'],
  }).flatMap(([name, others]) => [name, ...others].map((one) => [one, name] as const)),
);

/**
 * An identity of an allow-list: `subject:` and a distinguished name of RFC 4514, `dns:` or `uri:` and an alternative name.
 * Host names know no case (RFC 4343); all else is compared byte by byte.
 * @throws BadIdentity with what is wrong
 */
export function canonicalIdentity(text: string): string {
  const [, kind, name = ''] = /^(subject|dns|uri):(.*)$/s.exec(text) ?? [];
  if (kind === undefined || name === '')
    throw new BadIdentity('must be subject:, dns: or uri: and the identity');
  if (kind === 'dns') return `dns:${name.toLowerCase()}`;
  return kind === 'uri' ? text : `subject:${canonicalName(name)}`;
}

/** A canonical identity as it is written in `[[roles]]` and `clients`: what somebody is told is there to be copied. */
export function identityText(canonical: string): string {
  if (!canonical.startsWith('subject:')) return canonical;
  return canonical.replace(/=("(?:[^"\\]|\\.)*")/g, (_, value: string) => `=${escaped(JSON.parse(value))}`);
}

/** All identities of a certificate: its subject, and its alternative names of the kinds that can be allowed. */
export function identitiesOf(
  certificate: Pick<X509Certificate, 'subject' | 'subjectAltName'>,
): ReadonlySet<string> {
  const identities = new Set<string>();
  // One line an RDN, the most significant first, escaped as RFC 2253 has it (Node, ToV8Value of a name: multi-line,
  // ESC_2253 and ESC_CTRL). RFC 4514 writes them the other way round.
  const lines = certificate.subject?.split('\n').reverse() ?? [];
  try {
    if (lines.length > 0)
      identities.add(`subject:${lines.map((line) => canonicalRdn(line, ' + ')).join(',')}`);
  } catch (error) {
    if (!(error instanceof BadIdentity)) throw error; // it has names that no list can have
  }
  for (const [kind, value] of alternativeNames(certificate.subjectAltName ?? '')) {
    if (kind === 'DNS') identities.add(`dns:${value.toLowerCase()}`);
    if (kind === 'URI') identities.add(`uri:${value}`);
  }
  return identities;
}

/** A distinguished name by which equal ones are equal text: types by one name each, values without escapes. */
function canonicalName(name: string): string {
  return splitUnescaped(name, ',')
    .map((rdn) => canonicalRdn(rdn, '+'))
    .join(',');
}

/** The attributes of one RDN; they are a set, so that their order says nothing. */
function canonicalRdn(rdn: string, separator: string): string {
  return splitUnescaped(rdn, separator).map(canonicalAttribute).sort().join('+');
}

function canonicalAttribute(text: string): string {
  const equals = text.indexOf('=');
  const type = text.slice(0, equals).trim().toUpperCase();
  const given = text.slice(equals + 1);
  if (equals < 1 || type === '') throw new BadIdentity(`${JSON.stringify(text)} is no TYPE=value`);
  if (given.startsWith('#'))
    throw new BadIdentity(`${type} has a value in hexadecimal, which is not compared`);
  if (splitUnescaped(given, '"').length > 1)
    throw new BadIdentity(`${type} has a value in quotes, which RFC 4514 has not; a quote of its own is \\"`);
  // As JSON, so that no value can look like two attributes.
  return `${types.get(type) ?? type}=${JSON.stringify(unescaped(given))}`;
}

/** RFC 4514, section 2.4. */
function escaped(value: string): string {
  return value
    .replace(/["+,;<=>\\]|^[ #]| $/g, '\\$&')
    .replace(/\p{Cc}/gu, (one) => Buffer.from(one).toString('hex').replace(/../g, '\\$&'));
}

/** RFC 4514, section 3: a backslash before a special character, or before two hexadecimal digits of a byte of UTF-8. */
function unescaped(value: string): string {
  const bytes: Buffer[] = [];
  for (const [part, hex, special] of value.matchAll(/\\([0-9A-Fa-f]{2})|\\([ "#+,;<=>\\])|[^\\]+|\\/gs)) {
    if (part === '\\')
      throw new BadIdentity(`${JSON.stringify(value)} has a backslash before nothing special`);
    bytes.push(hex === undefined ? Buffer.from(special ?? part) : Buffer.from(hex, 'hex'));
  }
  return Buffer.concat(bytes).toString('utf8');
}

function splitUnescaped(text: string, separator: string): string[] {
  const parts = [''];
  for (let at = 0; at < text.length; at++) {
    if (text.startsWith(separator, at)) {
      parts.push('');
      at += separator.length - 1;
    } else {
      const length = text[at] === '\\' ? 2 : 1;
      parts[parts.length - 1] += text.slice(at, at + length);
      at += length - 1;
    }
  }
  return parts;
}

/**
 * `DNS:a, URI:b`: Node puts a value into JSON's quotes where it holds a comma, a quote or a control character, so that
 * none can look like two names (CVE-2021-44532).
 */
function* alternativeNames(text: string): Generator<[kind: string, value: string]> {
  for (const [, kind = '', value = ''] of text.matchAll(
    /(?:^|, )([A-Za-z ]+):("(?:[^"\\]|\\.)*"|[^",]*)(?=, |$)/g,
  )) {
    yield [kind, value.startsWith('"') ? String(JSON.parse(value)) : value];
  }
}
