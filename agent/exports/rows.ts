import type { ExportRow, ScratchUse } from '../api/generated.js';
import type { ExportTraffic } from '../gateway/traffic.js';
import type { BootClock } from '../host/boot-clock.js';
import { shownLease } from '../host/lease.js';
import type { ExportRecord } from './record.js';

/**
 * What lists show of an export.
 * @param traffic of one on the network, where the gateway answers: who is connected on this host is not known
 * @param scratch of one that is written to and thrown away, while its server lives
 */
export function rowOf(
  clock: BootClock,
  record: ExportRecord,
  traffic: ExportTraffic | undefined,
  scratch: ScratchUse | null,
): ExportRow {
  if (record.state === 'ended') throw new Error(`${record.exportId} has ended`);
  return {
    exportId: record.exportId,
    kind: record.use,
    owner: record.owner,
    vmId: record.vm?.uuid ?? null,
    disk: record.disk,
    path: record.image.path,
    format: record.image.format,
    pointInTime: pointInTimeOf(record),
    access: record.params.access ?? 'read-only',
    scratch,
    mountedAt: record.file?.file ?? null,
    transport: record.params.transport ?? { type: 'unix' },
    attachedTo: record.attachments.map(({ vm, target }) => ({ vmId: vm.uuid, target })),
    clients: traffic?.clients ?? null,
    bytes: traffic?.sent ?? null,
    created: record.created,
    lease: shownLease(clock, record.lease),
    state: record.state,
    error: record.error,
    blocksStart: record.blocksStart,
  };
}

/** What callers are shown of the state that an export shows. */
export function pointInTimeOf({ pointInTime: point }: ExportRecord): ExportRow['pointInTime'] {
  if (point.kind !== 'backup') return point;
  return point.own ? { kind: 'backup' } : { kind: 'backup', backupId: point.backupId };
}
