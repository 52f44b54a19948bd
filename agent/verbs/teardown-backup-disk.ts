import { tearDown } from '../exports/teardown.js';
import { exportCall, type Services } from './services.js';
import type { Verb } from './verb.js';

export const teardownBackupDisk =
  ({ exports }: Services): Verb<'teardownBackupDisk'> =>
  (params, call) =>
    tearDown(exports, params, exportCall(call));
