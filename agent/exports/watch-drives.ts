import { Comparisons } from './comparisons.js';
import { driveLock, type ExportsContext } from './context.js';
import { type DriveRecord, driveIdOf } from './drive-record.js';
import { refreshDriveById } from './foreign-drive.js';
import { pluggedByAlias } from './pluggable.js';
import { ofDrive } from './told.js';

/** How often what is due is begun. */
const LOOK_MS = 1000;
/** Until one whose plugging in ended half-way, and could not be taken back then, is looked at again. */
const HALF_WAY_MS = 10_000;

/**
 * Notices what happens to drives of other hosts by themselves, as `watchExports` does for those of exports: one that leaves
 * its VM late, with it, by another hand or while nobody watched is forgotten. Tells of guests that keep theirs, and those of
 * exports too.
 */
export function watchDrives(context: ExportsContext): { close(): void } {
  const { drives, libvirt, locks, events } = context;
  const comparisons = new Comparisons(context, 'drive', (id) => refreshDriveById(context, id));
  const ask = (concerned: (record: DriveRecord) => boolean) => {
    for (const record of drives.allLive()) if (concerned(record)) comparisons.add(driveIdOf(record));
    comparisons.run();
  };
  const askAll = () => ask(() => true);
  const isHalfWay = ({ attachment, drive }: DriveRecord) =>
    attachment.state === 'attaching' && locks.holder(driveLock(drive.serial)) === undefined;
  const timers = [
    setInterval(() => comparisons.run(), LOOK_MS),
    setInterval(() => ask(isHalfWay), HALF_WAY_MS),
  ];
  const subscriptions = [
    libvirt.subscribe('deviceRemoved', ({ domain, alias }) =>
      ask(({ attachment: { vm, alias: ours } }) => vm.uuid === domain.uuid && ours === alias),
    ),
    libvirt.subscribe('lifecycle', ({ domain }) => ask(({ attachment: { vm } }) => vm.uuid === domain.uuid)),
    libvirt.subscribe('deviceRemovalFailed', ({ domain, alias }) => {
      const found = pluggedByAlias(context, domain.uuid, alias);
      if (found === undefined) return;
      const about = ofDrive(found.what, domain.uuid, found.attachment.target);
      events.emit({ kind: 'driveDetachRefused', ...about });
    }),
  ];
  libvirt.on('back', askAll);
  askAll();
  return {
    close() {
      for (const timer of timers) clearInterval(timer);
      for (const subscription of subscriptions) subscription.close();
      libvirt.off('back', askAll);
    },
  };
}
