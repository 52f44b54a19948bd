import { isIP, isIPv6 } from 'node:net';
import type { Config } from '../api/generated.js';
import { parseHost, parseListen } from '../tls/addresses.js';
import { BadIdentity, canonicalIdentity } from '../tls/identities.js';
import { ConfigError } from './error.js';
import type { MergedFiles } from './files.js';

type Network = Pick<Config, 'rpc' | 'tls' | 'gateway' | 'roles' | 'hotplug' | 'metrics'>;

/** What is wrong with the option at a path. */
type Mistake = [path: (string | number)[], what: string];

const MAX_PORT = 65_535;

/** What the schema cannot say of listeners, certificates and roles. @throws ConfigError with one line a mistake */
export function checkNetwork(config: Network, fileOf: MergedFiles['fileOf']): void {
  const mistakes = [
    ...wrongAddresses(config),
    ...wrongCertificates(config),
    ...wrongRoles(config),
    ...wrongHosts(config),
    ...wrongMetrics(config),
  ];
  if (mistakes.length === 0) return;
  const lines = mistakes.map(([path, what]) => {
    const file = fileOf(path.map(String));
    return `${file === undefined ? '' : `${file}: `}${path.join('.')} ${what}`;
  });
  throw new ConfigError(lines.join('\n'));
}

function wrongAddresses({ rpc, gateway }: Network): Mistake[] {
  const mistakes: Mistake[] = [];
  const checkPorts = (path: string[], addresses: readonly string[]) =>
    addresses.forEach((text, index) => {
      const { port } = parseListen(text);
      // Port 0 would be another at each start: no caller and no drive could name it.
      if (port < 1 || port > MAX_PORT) {
        mistakes.push([[...path, index], `is "${text}"; allowed: a port from 1 to ${MAX_PORT}`]);
      }
    });
  for (const framing of ['tls', 'https', 'wss'] as const) checkPorts(['rpc', framing], rpc[framing]);
  const ofHttp: readonly string[] = [...rpc.https, ...rpc.wss];
  const shared = rpc.tls.find((text) => ofHttp.includes(text));
  if (shared !== undefined) {
    const what = `is "${shared}", which rpc.https or rpc.wss has too; allowed: an address of its own`;
    mistakes.push([['rpc', 'tls'], what]);
  }
  checkPorts(['gateway', 'listen'], gateway.listen);
  const { advertise } = gateway;
  if (advertise.includes(':') && isIP(advertise) !== 6) {
    const allowed = 'a name or address without a port, which is that of the first of gateway.listen';
    mistakes.push([['gateway', 'advertise'], `is "${advertise}"; allowed: ${allowed}`]);
  }
  return mistakes;
}

function wrongCertificates({ rpc, tls }: Network): Mistake[] {
  if (rpc.tls.length + rpc.https.length + rpc.wss.length === 0) return [];
  const missing = (['cert', 'key', 'clientCa'] as const).filter((name) => tls[name] === '');
  return missing.map((name) => [
    ['tls', name],
    'is ""; allowed: a PEM file, since rpc listens on the network',
  ]);
}

function wrongRoles({ roles }: Network): Mistake[] {
  return roles.flatMap(({ identity }, index): Mistake[] => {
    try {
      canonicalIdentity(identity);
      return [];
    } catch (error) {
      if (!(error instanceof BadIdentity)) throw error;
      return [[['roles', index, 'identity'], `is "${identity}" and ${error.message}`]];
    }
  });
}

function wrongHosts({ hotplug }: Network): Mistake[] {
  return hotplug.allowedHosts.flatMap((text, index): Mistake[] => {
    const { host, port } = parseHost(text);
    const isPort = port === null || (port > 0 && port <= MAX_PORT);
    if (isPort && (!text.startsWith('[') || isIPv6(host))) return [];
    const allowed = isPort ? 'an IPv6 address in the brackets' : `a port from 1 to ${MAX_PORT}, or none`;
    return [[['hotplug', 'allowedHosts', index], `is "${text}"; allowed: ${allowed}`]];
  });
}

/** Whoever reads them sees which VMs there are: they are not for the network. */
function wrongMetrics({ metrics: { listen } }: Network): Mistake[] {
  if (listen === '' || listen.startsWith('/')) return [];
  const { host, port } = parseListen(listen);
  const isLoopback = host === 'localhost' || (isIP(host) === 4 ? host.startsWith('127.') : host === '::1');
  if (isLoopback && port >= 1 && port <= MAX_PORT) return [];
  const allowed = `a loopback address (127.0.0.1, [::1], localhost) with a port from 1 to ${MAX_PORT}`;
  return [[['metrics', 'listen'], `is "${listen}"; allowed: ${allowed}, or a path`]];
}
