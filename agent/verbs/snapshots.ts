import { isAdmin } from '../access/identity.js';
import { describeSnapshot, listSnapshots as snapshotsOf } from '../points-in-time/describe-snapshots.js';
import { exportCall, type Services } from './services.js';
import type { Verb } from './verb.js';

export const createSnapshot =
  ({ snapshotCreation }: Services): Verb<'createSnapshot'> =>
  (params, call) =>
    snapshotCreation.create(params, exportCall(call));

export const deleteSnapshot =
  ({ snapshotDeletion }: Services): Verb<'deleteSnapshot'> =>
  (params, call) =>
    snapshotDeletion.start(params, exportCall(call));

export const getSnapConfig =
  ({ exports }: Services): Verb<'getSnapConfig'> =>
  (params, { identity, signal }) =>
    describeSnapshot(exports, params, isAdmin(identity), signal); // who may see passwords

export const listSnapshots =
  ({ exports }: Services): Verb<'listSnapshots'> =>
  async ({ vmId }, { signal }) => ({ snapshots: await snapshotsOf(exports, vmId, signal) });
