import { attachDrive } from '../exports/attach.js';
import { detachDrive } from '../exports/detach.js';
import { exportCall, type Services } from './services.js';
import type { Verb } from './verb.js';

export const hotplugDisk =
  ({ exports }: Services): Verb<'hotplugDisk'> =>
  (params, call) =>
    attachDrive(exports, params, exportCall(call));

export const hotunplugDisk =
  ({ exports }: Services): Verb<'hotunplugDisk'> =>
  (params, call) =>
    detachDrive(exports, params, exportCall(call));
