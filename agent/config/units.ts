/**
 * What systemd has to know of the configuration: where to listen, and what the daemon may see and write. Written by
 * `vmdiskd --write-units`, which systemd's generator calls at each start and `daemon-reload`, so that an address stands in one place.
 */
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { dirname, join } from 'node:path';
import { parseListen } from '../tls/addresses.js';
import type { Config } from './config.js';
import { ConfigError } from './error.js';

const HEADING =
  '# Made of the configuration of vmdiskd by its generator: change it there, and systemctl daemon-reload.';

/** Path below the generator's directory → text; a text that begins with `/` is where a link leads to. */
export function unitFiles(config: Config): ReadonlyMap<string, string> {
  const { rpc, metrics, gateway } = config;
  const network = [...rpc.tls, ...new Set([...rpc.https, ...rpc.wss])];
  const sockets = new Map<string, string>([
    ['vmdiskd.socket', socketUnit('JSON-RPC of vmdiskd', 'vmdiskd', 'rpc', [rpc.socket], rpc.group)],
  ]);
  if (network.length > 0) {
    const listens = addresses('rpc', network);
    sockets.set(
      'vmdiskd-network.socket',
      socketUnit('JSON-RPC of vmdiskd, over TLS', 'vmdiskd', 'network', listens),
    );
  }
  if (metrics.listen !== '') {
    const at = metrics.listen.startsWith('/') ? [metrics.listen] : addresses('metrics', [metrics.listen]);
    sockets.set(
      'vmdiskd-metrics.socket',
      socketUnit('Metrics of vmdiskd', 'vmdiskd', 'metrics', at, rpc.group),
    );
  }
  const files = new Map([
    ...sockets,
    ['vmdiskd.service.d/10-configuration.conf', daemonDropIn(config, [...sockets.keys()])],
  ]);
  if (gateway.listen.length === 0) return files;
  const listens = addresses('gateway', gateway.listen);
  const unit = socketUnit('Exports of vmdiskd, over TLS', 'vmdiskd-gateway', 'gateway', listens);
  files.set('vmdiskd-gateway.socket', unit);
  files.set('vmdiskd-gateway.service.d/10-configuration.conf', gatewayDropIn(config));
  // Only where it has something to listen on.
  files.set(
    'multi-user.target.wants/vmdiskd-gateway.service',
    '/usr/lib/systemd/system/vmdiskd-gateway.service',
  );
  return files;
}

/** Writes them below a directory that systemd has made for it. */
export function writeUnits(directory: string, config: Config): void {
  for (const [path, text] of unitFiles(config)) {
    const file = join(directory, path);
    mkdirSync(dirname(file), { recursive: true });
    if (text.startsWith('/')) symlinkSync(text, file);
    else writeFileSync(file, text);
  }
}

/** Keeps what the generator falls back to, for as long as there is a mistake in the configuration. */
export function keepUnits(runtimeDirectory: string, config: Config): void {
  const kept = join(runtimeDirectory, 'units');
  rmSync(kept, { recursive: true, force: true });
  writeUnits(kept, config);
}

/** @throws ConfigError for a name: systemd looks none up */
function addresses(key: string, listens: readonly string[]): string[] {
  for (const text of listens) {
    if (isIP(parseListen(text).host) !== 0) continue;
    throw new ConfigError(
      `${key}: "${text}" is a name; allowed where systemd listens: an address with a port`,
    );
  }
  return [...listens];
}

function socketUnit(
  description: string,
  service: string,
  name: string,
  listens: readonly string[],
  group?: string,
): string {
  return lines(
    '[Unit]',
    `Description=${description}`,
    `Documentation=man:${service}(8)`,
    '',
    '[Socket]',
    ...listens.map((at) => `ListenStream=${escaped(at)}`),
    `FileDescriptorName=${name}`,
    `Service=${service}.service`,
    // Who may is the group's; and where there is no such group it is root's alone.
    ...(group === undefined ? ['NoDelay=yes'] : ['SocketMode=0660', `SocketGroup=${group}`]),
    'DirectoryMode=0755',
    ...(listens.some((at) => at.startsWith('/')) ? ['RemoveOnStop=yes'] : []),
  );
}

function daemonDropIn({ paths, images, hotplug, gateway }: Config, sockets: readonly string[]): string {
  const roots = images.allowedRoots;
  const own = [paths.run, paths.state, paths.scratch];
  const within = (folders: readonly string[]) =>
    roots.some((root) =>
      folders.some(
        (folder) => `${root}/`.startsWith(`${folder}/`) || folder.startsWith(`${root.replace(/\/$/, '')}/`),
      ),
    );
  return lines(
    '[Unit]',
    `Requires=${sockets.join(' ')}`,
    `After=${sockets.join(' ')}`,
    // A gateway that is new in the configuration is there when the daemon has been restarted, and not at the next boot.
    ...(gateway.listen.length > 0 ? ['Wants=vmdiskd-gateway.service'] : []),
    '',
    '[Service]',
    '# Its own files, and the images: those that are written to are merged, restored or made here.',
    ...own.map((path) => `ReadWritePaths=-${escaped(path)}`),
    ...roots.map((path) => `ReadWritePaths=-${escaped(path)}`),
    '# Outside of the sandbox, in which it could not make them.',
    ...own.map((path) => `ExecStartPre=+/bin/mkdir -p -m 0711 ${escaped(path).replaceAll('$', '$$$$')}`),
    ...(within(['/home', '/root', '/run/user']) ? ['# Images are there.', 'ProtectHome=no'] : []),
    ...(within(['/tmp', '/var/tmp']) ? ['# Images are there.', 'PrivateTmp=no'] : []),
    ...(within(['/dev'])
      ? [
          '# Images are there, of which it reads the headers.',
          'PrivateDevices=no',
          'DevicePolicy=closed',
          'DeviceAllow=block-* r',
        ]
      : []),
    ...(hotplug.allowedHosts.length === 0
      ? [
          '# It connects to nobody on the network: its listeners are of the sockets above.',
          'PrivateNetwork=yes',
          'IPAddressDeny=any',
        ]
      : [
          '# It tries the gateways of [hotplug] allowedHosts before QEMU is sent to one.',
          'RestrictAddressFamilies=AF_INET AF_INET6',
        ]),
  );
}

function gatewayDropIn({ paths }: Config): string {
  return lines(
    '[Unit]',
    'Requires=vmdiskd-gateway.socket',
    'After=vmdiskd-gateway.socket',
    '',
    '[Service]',
    `ReadWritePaths=-${escaped(paths.run)}`,
  );
}

/** A path or address in a unit: `%` begins a specifier there, and a space the next word. */
function escaped(text: string): string {
  return text
    .replace(
      /[\s\\"']/g,
      (character) => `\\x${(character.codePointAt(0) ?? 0).toString(16).padStart(2, '0')}`,
    )
    .replaceAll('%', '%%');
}

function lines(...text: readonly string[]): string {
  return `${[HEADING, ...text].join('\n')}\n`;
}
