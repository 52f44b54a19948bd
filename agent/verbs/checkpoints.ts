import {
  deleteCheckpoint as deleteOne,
  listCheckpoints as list,
  redefineCheckpoints as redefine,
} from '../points-in-time/checkpoints.js';
import { confirmCheckpoint as confirm } from '../points-in-time/confirm-checkpoint.js';
import { joining } from './joining.js';
import { exportCall, type Services } from './services.js';
import type { Verb } from './verb.js';

export const listCheckpoints =
  ({ exports }: Services): Verb<'listCheckpoints'> =>
  async ({ vmId }, { signal }) => ({ checkpoints: await list(exports, vmId, signal) });

export const deleteCheckpoint = ({ exports }: Services): Verb<'deleteCheckpoint'> =>
  joining((params, call) => deleteOne(exports, params, exportCall(call)));

export const redefineCheckpoints = ({ exports }: Services): Verb<'redefineCheckpoints'> =>
  joining((params, call) => redefine(exports, params, exportCall(call)));

export const confirmCheckpoint = ({ exports }: Services): Verb<'confirmCheckpoint'> =>
  joining((params, call) => confirm(exports, params, exportCall(call)));
