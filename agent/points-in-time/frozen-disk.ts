import type { DomainDisk } from '../domains/config.js';
import type { DomainState } from '../domains/lookup.js';
import { type FrozenDisk, frozenDisk, noSuchSnapshot } from '../domains/snapshots.js';
import type { PointsContext } from './context.js';
import { findSnapshot } from './snapshot-record.js';

/**
 * Where the state of a disk lies that a snapshot froze: as libvirt has it, which follows what merges of other snapshots do to
 * the files; where libvirt has lost the snapshot (with a transient VM that has ended and was made anew), as our record
 * says. Whether that file is still below the disk is for the caller to see.
 * @throws AgentError `NoSuchSnapshot`
 */
export async function findFrozen(
  { libvirt, snapshots }: Pick<PointsContext, 'libvirt' | 'snapshots'>,
  state: DomainState,
  disk: DomainDisk,
  snapshotId: string,
  signal: AbortSignal,
): Promise<FrozenDisk> {
  const known = await frozenDisk(libvirt, state, disk, snapshotId, signal);
  if (known !== undefined) return known;
  const record = findSnapshot(snapshots, state.domain.uuid, snapshotId);
  const ours = record?.disks.find(({ target }) => target === disk.target);
  if (record?.state !== 'ready' || ours === undefined) {
    throw noSuchSnapshot(state.domain, snapshotId, { disk: disk.target });
  }
  return { source: { type: 'file', path: ours.frozen, format: ours.frozenFormat }, overlay: ours.active };
}
