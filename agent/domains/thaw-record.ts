import { nullable, object, oneOf, time, vm } from '../host/record-shape.js';
import { type LivingRecord, Registry } from '../host/registry.js';

export const THAW_RECORD_VERSION = 1;

/**
 * A guest that is frozen for a point in time, or may be: written down before its agent is asked, and removed once it is
 * thawed, which may be long after the point in time has its answer.
 */
export interface ThawRecord extends LivingRecord {
  version: typeof THAW_RECORD_VERSION;
  kind: 'thaw';
  vm: { uuid: string; name: string };
}

export type ThawRegistry = Registry<ThawRecord>;

export function thawRegistry(state: string): ThawRegistry {
  return new Registry<ThawRecord>(state, {
    folder: 'thaws',
    kind: 'thaw',
    version: THAW_RECORD_VERSION,
    idOf: ({ vm }) => vm.uuid,
    shape: object<ThawRecord>({
      version: oneOf(THAW_RECORD_VERSION),
      kind: oneOf('thaw'),
      created: time,
      ended: nullable(time),
      vm,
    }),
    remains: (record) => record,
  });
}
