import { apiInfo, verbSchemas } from '../api/schemas.js';
import { MAX_BITMAP_PAGE } from '../changed-blocks/bits.js';
import { FREEZE_MS } from '../domains/freeze.js';
import { CONNECTIONS } from '../exports/context.js';
import type { Services } from './services.js';
import type { Verb } from './verb.js';

export const getHostInfo =
  ({ config: inForce, hostFacts, recovery }: Services): Verb<'getHostInfo'> =>
  async () => {
    const config = inForce();
    const { libvirt, qemu, qemuNbd, connected } = await hostFacts.current();
    const {
      clients,
      clientsPerIdentity,
      frameBytes,
      batch,
      verbs,
      exports,
      exportsPerVm,
      maxLease,
      scratchReserve,
      scratchPerExport,
      events,
      eventWaiters,
      deadlineSeconds,
    } = config.limits;
    return {
      apiVersion: apiInfo.version,
      hostId: config.hostId,
      state: recovery.isDone ? 'ready' : 'recovering',
      versions: {
        vmdiskd: apiInfo.version,
        node: process.versions.node,
        libvirt,
        qemu,
        qemuNbd: qemuNbd.version,
      },
      capabilities: {
        libvirt: { uri: config.libvirt.uri, connected },
        qemu: { bitmaps: qemuNbd.bitmaps, allocationDepth: qemuNbd.allocationDepth },
      },
      limits: {
        clients,
        clientsPerIdentity,
        frameBytes,
        batch,
        verbs,
        exports,
        exportsPerVm,
        maxLease,
        scratchReserve,
        scratchPerExport,
        events,
        eventWaiters,
        inlineExtents: mostOf('prepareBackupDisk', 'inlineExtents'),
        maxExtents: mostOf('getChangedBlocks', 'maxExtents'),
        bitmapBytes: MAX_BITMAP_PAGE,
        connections: CONNECTIONS,
        deadlineSeconds,
        stateSeconds: { ...config.limits.stateSeconds, freeze: FREEZE_MS / 1000 },
      },
    };
  };

/** The most that the schema allows in a member of a verb's params. */
function mostOf(verb: keyof typeof verbSchemas, member: string): number {
  return Number(verbSchemas[verb].params.properties[member]?.maximum);
}
