import { listDisks as listDomainDisks } from '../domains/list-disks.js';
import type { Services } from './services.js';
import type { Verb } from './verb.js';

export const listDisks =
  ({ config, exports: { libvirt } }: Services): Verb<'listDisks'> =>
  async ({ vmId }, { signal }) => ({
    disks: await listDomainDisks(libvirt, vmId, config().images.allowedRoots, signal),
  });
