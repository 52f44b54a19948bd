import type { DomainDisk } from '../domains/config.js';
import type { DomainState } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import { fileAt } from '../host/open-files.js';
import type { PointsContext } from './context.js';

/**
 * A snapshot of a VM that is off freezes its images; one that an export writes to would go on changing below it.
 * @throws AgentError `DiskInUse`
 */
export async function refuseWriter(
  { writerOf }: Pick<PointsContext, 'writerOf'>,
  { domain }: DomainState,
  disks: readonly DomainDisk[],
): Promise<void> {
  for (const { source, target } of disks) {
    const file = source.path === null ? undefined : await fileAt(source.path);
    const writer = file === undefined ? undefined : writerOf([file]);
    if (writer === undefined) continue;
    throw new AgentError(
      'DiskInUse',
      `The export "${writer}" writes to ${target} of ${domain.name}, so its state cannot be frozen now; tear it down first.`,
      { vmId: domain.uuid, disk: target, exportId: writer },
    );
  }
}
