import { liveExport } from '../exports/registry.js';
import { rowOf } from '../exports/rows.js';
import type { Services } from './services.js';
import type { Verb } from './verb.js';

export const listExports =
  ({ exports: { registry } }: Services): Verb<'listExports'> =>
  async ({ vmId }) => ({
    exports: registry
      .allLive()
      .filter(({ vm }) => vmId === undefined || vm?.uuid === vmId || vm?.name === vmId)
      .map(rowOf),
  });

export const getExport =
  ({ exports: { registry } }: Services): Verb<'getExport'> =>
  async ({ exportId }) =>
    rowOf(liveExport(registry, exportId));
