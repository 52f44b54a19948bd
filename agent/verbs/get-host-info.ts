import { apiInfo, verbSchemas } from '../api/schemas.js';
import { MAX_BITMAP_PAGE } from '../changed-blocks/bits.js';
import { CONNECTIONS } from '../exports/context.js';
import type { Services } from './services.js';
import type { Verb } from './verb.js';

export const getHostInfo =
  ({ config, hostFacts }: Services): Verb<'getHostInfo'> =>
  async () => {
    const { libvirt, qemu, qemuNbd, connected } = await hostFacts.current();
    const { clients, frameBytes, batch, verbs, exports, deadlineSeconds } = config.limits;
    return {
      apiVersion: apiInfo.version,
      hostId: config.hostId,
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
        frameBytes,
        batch,
        verbs,
        exports,
        inlineExtents: mostOf('prepareBackupDisk', 'inlineExtents'),
        maxExtents: mostOf('getChangedBlocks', 'maxExtents'),
        bitmapBytes: MAX_BITMAP_PAGE,
        connections: CONNECTIONS,
        deadlineSeconds,
      },
    };
  };

/** The most that the schema allows in a member of a verb's params. */
function mostOf(verb: keyof typeof verbSchemas, member: string): number {
  return Number(verbSchemas[verb].params.properties[member]?.maximum);
}
