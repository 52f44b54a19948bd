import { networkTraffic } from '../exports/network.js';
import { scratchUseOf } from '../exports/overlay.js';
import { liveExport } from '../exports/registry.js';
import { rowOf } from '../exports/rows.js';
import type { Services } from './services.js';
import type { Verb } from './verb.js';

export const listExports =
  ({ exports, access }: Services): Verb<'listExports'> =>
  async ({ vmId }, { identity, signal }) => {
    const { registry, clock } = exports;
    const sees = await access.sight(identity, signal);
    const records = registry
      .allLive()
      .filter(({ vm }) => vmId === undefined || vm?.uuid === vmId || vm?.name === vmId)
      .filter(({ owner, vm }) => sees({ owner, vmId: vm?.uuid ?? null }));
    const traffic = await networkTraffic(exports, records, signal);
    const scratch = await Promise.all(records.map(scratchUseOf));
    return {
      exports: records.map((record, i) =>
        rowOf(clock, record, traffic.get(record.exportId), scratch[i] ?? null),
      ),
    };
  };

export const getExport =
  ({ exports }: Services): Verb<'getExport'> =>
  async ({ exportId }, { signal }) => {
    const { registry, clock } = exports;
    const record = liveExport(registry, exportId);
    const traffic = await networkTraffic(exports, [record], signal);
    return rowOf(clock, record, traffic.get(exportId), await scratchUseOf(record));
  };
