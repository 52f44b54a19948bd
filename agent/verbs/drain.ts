import { exportCall, type Services } from './services.js';
import type { Verb } from './verb.js';

export const drain =
  ({ hostDrain }: Services): Verb<'drain'> =>
  (params, call) =>
    hostDrain.start(params, exportCall(call));
