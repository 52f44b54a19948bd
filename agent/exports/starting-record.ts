/** The record of an export from before its first deed, and what is added once its disk has been found. */
import { knownFormat } from '../images/chain.js';
import { isLive, type PointInTime } from './point-in-time.js';
import { EXPORT_RECORD_VERSION, type ExportParams, type ExportRecord } from './record.js';

/** What is known of an export before anything is made for it. */
export function startingRecord(use: ExportRecord['use'], params: ExportParams, owner: string): ExportRecord {
  const { path = '/', format = 'raw' } = params;
  return {
    version: EXPORT_RECORD_VERSION,
    kind: 'export',
    exportId: params.exportId,
    use,
    params,
    owner,
    created: new Date().toISOString(),
    state: 'starting',
    error: null,
    vm: null,
    disk: null,
    image: { path, format },
    pointInTime: { kind: 'image' },
    layers: [],
    blocksStart: false,
    lease: null,
    serverName: `vmdiskd-export-${params.exportId}`,
    server: null,
    overlay: null,
    file: null,
    newImage: null,
    drive: null,
    map: null,
    checkpoint: null,
    decided: null,
    outcome: null,
    attachments: [],
    ended: null,
  };
}

/** What is known once the disk has been found. */
export function aboutPoint(point: PointInTime): Pick<ExportRecord, 'vm' | 'disk' | 'image' | 'pointInTime'> {
  const domain = point.of?.state.domain ?? null;
  return {
    vm: domain === null ? null : { uuid: domain.uuid, name: domain.name },
    disk: point.of?.disk.target ?? null,
    image: imageOf(point),
    pointInTime: isLive(point) ? { kind: 'backup', backupId: point.at.backupId ?? '', own: false } : point.at,
  };
}

function imageOf(point: PointInTime): ExportRecord['image'] {
  const top = isLive(point) ? point.of.disk.source : point.layers[0];
  const path = top?.path ?? '';
  return { path, format: knownFormat(top?.format ?? '', path) };
}
