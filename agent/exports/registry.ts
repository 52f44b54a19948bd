import { AgentError } from '../errors.js';
import { type FileId, isSameFile } from '../host/open-files.js';
import { Registry } from '../host/registry.js';
import { EXPORT_RECORD_VERSION, type ExportRecord } from './record.js';
import { exportShape } from './record-shape.js';

export type ExportRegistry = Registry<ExportRecord>;

export function exportRegistry(state: string): ExportRegistry {
  return new Registry<ExportRecord>(state, {
    folder: 'exports',
    kind: 'export',
    version: EXPORT_RECORD_VERSION,
    idOf: ({ exportId }) => exportId,
    shape: exportShape,
    remains: (record) => ({
      ...record,
      params: {
        exportId: record.exportId,
        access: 'read-only',
        transport: { type: 'unix' },
        inlineExtents: 0,
      },
      layers: [],
      server: null,
      overlay: null,
      file: null,
      newImage: null,
      drive: null,
      map: null,
      attachments: [],
    }),
  });
}

/** The record of an export that has not ended. @throws AgentError `NoSuchExport` */
export function liveExport(registry: ExportRegistry, exportId: string): ExportRecord {
  const record = registry.find(exportId);
  if (record !== undefined && record.state !== 'ended') return record;
  throw new AgentError(
    'NoSuchExport',
    `There is no export "${exportId}"${record === undefined ? '' : ' any more: it was torn down'}; listExports shows those there are.`,
    { exportId },
  );
}

/** The id of a live export that reads one of the files, in whichever layer; undefined without one. */
export function readerOf(registry: ExportRegistry, files: readonly FileId[]): string | undefined {
  return registry
    .allLive()
    .find(({ layers }) => layers.some((layer) => files.some((file) => isSameFile(layer.file, file))))
    ?.exportId;
}

/** The id of a live export that writes to one of the files; undefined without one. */
export function writerOf(registry: ExportRegistry, files: readonly FileId[]): string | undefined {
  return registry
    .allLive()
    .filter(isWriter)
    .find(({ layers: [top] }) => top !== undefined && files.some((file) => isSameFile(top.file, file)))
    ?.exportId;
}

/** Whether an export's clients write to its image. */
export function isWriter({ params }: ExportRecord): boolean {
  return params.access === 'read-write';
}
