import { renewBackup as renewOneBackup, renewExport as renewOneExport } from '../exports/leases.js';
import { exportCall, type Services } from './services.js';
import type { Verb } from './verb.js';

export const renewExport =
  ({ exports }: Services): Verb<'renewExport'> =>
  (params, call) =>
    renewOneExport(exports, params, exportCall(call));

export const renewBackup =
  ({ exports }: Services): Verb<'renewBackup'> =>
  (params, call) =>
    renewOneBackup(exports, params, exportCall(call));
