import { AgentError } from '../errors.js';
import { Registry } from '../host/registry.js';
import { EXPORT_RECORD_VERSION, type ExportRecord } from './record.js';

export type ExportRegistry = Registry<ExportRecord>;

export function exportRegistry(state: string): ExportRegistry {
  return new Registry<ExportRecord>(
    state,
    { folder: 'exports', kind: 'export', version: EXPORT_RECORD_VERSION },
    ({ exportId }) => exportId,
  );
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
