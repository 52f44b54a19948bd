import { isIPv6 } from 'node:net';
import type { Config } from '../api/generated.js';
import { parseHost, parseListen } from '../tls/addresses.js';
import { BadIdentity, canonicalIdentity } from '../tls/identities.js';
import { ConfigError } from './error.js';

const MAX_PORT = 65_535;

/** What the schema cannot say of addresses, certificates and roles. @throws ConfigError with one line a mistake */
export function checkNetwork({
  rpc,
  tls,
  roles,
  hotplug,
}: Pick<Config, 'rpc' | 'tls' | 'roles' | 'hotplug'>): void {
  const mistakes: string[] = [];
  for (const framing of ['tls', 'https', 'wss'] as const) {
    for (const text of rpc[framing]) {
      if (parseListen(text).port > MAX_PORT) {
        mistakes.push(`rpc.${framing} is "${text}"; allowed: a port up to ${MAX_PORT}`);
      }
    }
  }
  const ofHttp: readonly string[] = [...rpc.https, ...rpc.wss];
  const shared = rpc.tls.find((text) => ofHttp.includes(text));
  if (shared !== undefined) {
    mistakes.push(
      `rpc.tls is "${shared}", which rpc.https or rpc.wss has too; allowed: an address of its own`,
    );
  }
  const isOpen = rpc.tls.length + rpc.https.length + rpc.wss.length > 0;
  for (const name of ['cert', 'key', 'clientCa'] as const) {
    if (isOpen && tls[name] === '') {
      mistakes.push(`tls.${name} is ""; allowed: a PEM file, since rpc listens on the network`);
    }
  }
  roles.forEach(({ identity }, index) => {
    try {
      canonicalIdentity(identity);
    } catch (error) {
      if (!(error instanceof BadIdentity)) throw error;
      mistakes.push(`roles.${index}.identity is "${identity}" and ${error.message}`);
    }
  });
  hotplug.allowedHosts.forEach((text, index) => {
    const { host, port } = parseHost(text);
    const isPort = port === null || (port > 0 && port <= MAX_PORT);
    if (isPort && (!text.startsWith('[') || isIPv6(host))) return;
    const allowed = isPort ? 'an IPv6 address in the brackets' : `a port from 1 to ${MAX_PORT}, or none`;
    mistakes.push(`hotplug.allowedHosts.${index} is "${text}"; allowed: ${allowed}`);
  });
  if (mistakes.length > 0) throw new ConfigError(mistakes.join('\n'));
}
