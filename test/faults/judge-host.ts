/** Holds the processes, files, mounts and sockets of a host against the records, both ways. */
import { basename } from 'node:path';
import { type ExportRecord, frontOf } from '../../agent/exports/record.js';
import { differ } from './differ.js';
import type { HostFacts } from './host-facts.js';
import type { Expected } from './judge.js';

export function judgeProcesses({ processes, records }: HostFacts, { pids }: Expected): string[] {
  const servers = records.exports.flatMap((record) => serversOf(record));
  const qemus = [...pids.values()];
  const strangers = processes
    .filter(({ pid, comm, state, serves }) => {
      if (state === 'Z' || qemus.includes(pid) || /^(libvirtd|virtqemud|node)/.test(comm)) return false;
      return !servers.some((server) => server.pid === pid && server.name === serves);
    })
    .map(
      ({ pid, comm, args }) =>
        `process ${pid} (${args.join(' ').slice(0, 150) || comm}) is there without a record`,
    );
  const missing = servers
    .filter(({ needed }) => needed)
    .filter((server) => !processes.some(({ pid, state }) => pid === server.pid && state !== 'Z'))
    .map(({ name }) => `the server ${name} is on record and not there`);
  return [...strangers, ...missing];
}

/** `needed`: all of a ready export; of a failed one some may be alive until it is torn down. */
function serversOf(record: ExportRecord): { name: string; pid: number; needed: boolean }[] {
  const { exportId, state, server, serverName, overlay, file } = record;
  if (state !== 'ready' && state !== 'failed') return [];
  const all = [
    ...(server?.kind === 'qemu-nbd' ? [{ name: serverName, process: server.process }] : []),
    ...(overlay === null ? [] : [{ name: `vmdiskd-overlay-${exportId}`, process: overlay.process }]),
    ...(file === null ? [] : [{ name: `vmdiskd-file-${exportId}`, process: file.process }]),
  ];
  return all.map(({ name, process }) => ({ name, pid: process.identity.pid, needed: state === 'ready' }));
}

export function judgeFiles(facts: HostFacts, { images }: Expected): string[] {
  const { records, exportDirs, backupDirs, scratchDirs, strays } = facts;
  const exports = records.exports.filter(({ ended }) => ended === null);
  const running = records.backups.filter(({ state }) => state === 'running');
  const ids = running.map(({ backupId }) => backupId);
  const overlays = records.snapshots
    .filter(({ ended }) => ended === null)
    .flatMap(({ disks }) => disks.map(({ active }) => basename(active)));
  const created = exports
    .filter(({ newImage }) => newImage !== null)
    .map(({ image }) => basename(image.path));
  // Only while it is opened does the file of a throw-away layer have a name, and then its export is half-way.
  const layers = [...scratchDirs.keys()].filter((name) => name.startsWith('+'));
  const inside = (map: ReadonlyMap<string, string[]>) =>
    [...map].flatMap(([id, files]) => files.map((file) => `${id}/${file}`));
  return [
    ...differ(
      [...exportDirs.keys()],
      exports.map(({ exportId }) => exportId),
      'the directory of export',
    ),
    ...differ([...backupDirs.keys()], ids, 'the directory of backup'),
    ...differ(
      [...scratchDirs.keys()].filter((name) => !layers.includes(name)),
      ids,
      'the scratch directory of backup',
    ),
    ...differ(
      inside(scratchDirs),
      running.flatMap(({ backupId, disks }) => disks.map(({ target }) => `${backupId}/${target}`)),
      'scratch file',
    ),
    ...differ(
      inside(backupDirs),
      ids.map((id) => `${id}/nbd.sock`),
      'the file of a backup',
    ),
    ...differ(
      facts.images.filter((name) => !images.has(name) || created.includes(name)),
      [...overlays, ...created],
      'image',
    ),
    ...exports.flatMap((record) =>
      differ(exportDirs.get(record.exportId) ?? [], filesOf(record), `in export ${record.exportId}: file`),
    ),
    ...judgeMounts(facts),
    ...layers.map((name) => `the layer's file ${name} is left`),
    ...strays.map((path) => `${path} is left`),
  ];
}

/** A file is a mount; that of a failed export may be off already: who serves it takes it off where it ends by itself. */
function judgeMounts({ records, mounts }: HostFacts): string[] {
  const filed = records.exports.filter(({ ended, file }) => ended === null && file !== null);
  const line = ({ file }: ExportRecord) => `mount ${file?.file}`;
  const may = filed.filter(({ state }) => state !== 'ready').map(line);
  const twice = mounts.filter((mount, index) => mounts.indexOf(mount) !== index);
  return [
    ...differ(
      mounts.filter((mount) => !may.includes(mount)),
      filed.filter(({ state }) => state === 'ready').map(line),
      'the',
    ),
    ...twice.map((mount) => `the ${mount} is there twice`),
  ];
}

/** A failed export's files stay until it is torn down; those of its server with it. */
function filesOf({ server, overlay, file, map }: ExportRecord): string[] {
  const source = map?.source;
  const own = server?.kind === 'qemu-nbd';
  return [
    ...(own ? ['qemu-nbd.log'] : []),
    ...(own && overlay !== null ? ['base.sock'] : []),
    ...(own || overlay !== null ? ['nbd.sock'] : []),
    ...(overlay === null ? [] : ['overlay.log']),
    ...(file === null ? [] : ['disk', 'file.log']),
    ...(source?.kind === 'bits' ? ['map.bits'] : []),
    ...(source !== undefined && 'data' in source && source.data !== undefined ? ['data.bits'] : []),
  ];
}

export function judgeSockets({ records, sockets }: HostFacts, { qemuGid }: Expected): string[] {
  const found: string[] = [];
  const live = records.exports.filter(({ ended }) => ended === null);
  for (const record of records.exports) {
    if (record.state !== 'ready') continue;
    for (const socket of socketsOf(record)) {
      const facts = sockets.get(socket);
      // Whose clients come to this very socket: not those of a layer in front of it.
      const plugged = live.some(
        (one) =>
          frontOf(one)?.socket === socket &&
          one.attachments.length > 0 &&
          one.params.transport?.type !== 'tcp',
      );
      const what = `the ${basename(socket)} of export ${record.exportId}`;
      if (facts === undefined) found.push(`${what} is not there`);
      else if (!facts.greets) found.push(`nobody greets at ${what}`);
      else if (
        facts.uid !== 0 ||
        facts.mode !== (plugged ? 0o660 : 0o600) ||
        facts.gid !== (plugged ? qemuGid : 0)
      ) {
        found.push(
          `${what}, ${plugged ? '' : 'not '}plugged in, has ${facts.uid}:${facts.gid} ${facts.mode.toString(8)}`,
        );
      }
    }
  }
  return found;
}

/** Of all that serves an export. */
export function socketsOf({ server, overlay }: ExportRecord): string[] {
  return [server, overlay].flatMap((one) => (one === null ? [] : [one.socket]));
}
