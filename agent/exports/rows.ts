import type { ExportRow } from '../api/generated.js';
import type { ExportRecord } from './record.js';

/** What lists show of an export. */
export function rowOf(record: ExportRecord): ExportRow {
  if (record.state === 'ended') throw new Error(`${record.exportId} has ended`);
  return {
    exportId: record.exportId,
    kind: 'backup',
    owner: record.owner,
    vmId: record.vm?.uuid ?? null,
    disk: record.disk,
    path: record.image.path,
    format: record.image.format,
    pointInTime: pointInTimeOf(record),
    access: 'read-only',
    transport: record.params.transport ?? { type: 'unix' },
    attachedTo: record.attachments.map(({ vm, target }) => ({ vmId: vm.uuid, target })),
    clients: null,
    bytes: null,
    created: record.created,
    lease: null,
    state: record.state,
    error: record.error,
    blocksStart: record.blocksStart,
  };
}

function pointInTimeOf({ pointInTime: point }: ExportRecord): ExportRow['pointInTime'] {
  if (point.kind !== 'backup') return point;
  return point.own ? { kind: 'backup' } : { kind: 'backup', backupId: point.backupId };
}
