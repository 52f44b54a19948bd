import type { ExportRecord } from './record.js';

/** What an event tells of the export that it is about. */
export function ofExport({ exportId, owner, vm, disk }: ExportRecord) {
  return { exportId, owner, vmId: vm?.uuid ?? null, disk };
}

/** What an event tells of an export's drive in a VM. */
export function ofDrive(
  { exportId, owner }: Pick<ExportRecord, 'exportId' | 'owner'>,
  vmId: string,
  target: string,
) {
  return { exportId, owner, vmId, target };
}
