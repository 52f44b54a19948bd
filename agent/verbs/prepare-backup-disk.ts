import { exportCall, type Services } from './services.js';
import type { Verb } from './verb.js';

export const prepareBackupDisk =
  ({ preparation }: Services): Verb<'prepareBackupDisk'> =>
  (params, call) =>
    preparation.prepare(params, exportCall(call));
