import { tearDown } from '../exports/teardown.js';
import { exportCall, type Services } from './services.js';
import type { Verb } from './verb.js';

export const mountDisk =
  ({ preparation }: Services): Verb<'mountDisk'> =>
  (params, call) =>
    preparation.mount(params, exportCall(call));

export const unmountDisk =
  ({ exports }: Services): Verb<'unmountDisk'> =>
  (params, call) =>
    tearDown(exports, params, exportCall(call));
