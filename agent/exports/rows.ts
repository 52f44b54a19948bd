import type { ExportRow } from '../api/generated.js';
import type { ExportRecord } from './record.js';

/** What lists show of an export. */
export function rowOf(record: ExportRecord): ExportRow {
  const top = record.layers[0];
  if (record.state === 'ended' || top === undefined) throw new Error(`${record.exportId} has ended`);
  return {
    exportId: record.exportId,
    kind: 'backup',
    owner: record.owner,
    vmId: record.vm?.uuid ?? null,
    disk: record.disk,
    path: top.path,
    format: top.format,
    pointInTime: record.pointInTime,
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
