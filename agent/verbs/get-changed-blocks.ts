import { readMap } from '../exports/read-map.js';
import { exportCall, type Services } from './services.js';
import type { Verb } from './verb.js';

export const getChangedBlocks =
  ({ exports }: Services): Verb<'getChangedBlocks'> =>
  (params, call) =>
    readMap(exports, params, exportCall(call));
