import type { VmStartedEvent, VmStoppedEvent } from '../api/generated.js';
import type { EventSink } from '../events/event.js';
import {
  type LibvirtClient,
  LifecycleEvent,
  type LifecycleMessage,
  StartedDetail,
  StoppedDetail,
} from '../libvirt/index.js';

/** Tells which VMs start, stop, come and go, as libvirt says, until it is closed. */
export function tellVmEvents(libvirt: LibvirtClient, events: EventSink): { close(): void } {
  /** Domains whose QEMU waits for an incoming migration. */
  const arriving = new Set<string>();
  // What becomes of them while libvirt is away is not known.
  const forget = () => arriving.clear();
  libvirt.on('lost', forget);
  const subscription = libvirt.subscribe('lifecycle', (message) => tell(message, arriving, events));
  return {
    close() {
      subscription.close();
      libvirt.off('lost', forget);
    },
  };
}

/**
 * At the destination of a migration libvirt says `started`, migrated, when QEMU begins to listen, and `resumed` (or
 * `suspended`, of a VM that was paused) when the VM is there; a failed one is stopped. `resumed`, migrated, alone is also
 * what the source of a failed migration says (src/qemu/qemu_migration.c, qemuMigrationDstPrepareFresh and
 * qemuMigrationDstFinishFresh; src/qemu/qemu_domain.c, qemuDomainRunningReasonToResumeEvent).
 */
function tell({ domain, event, detail }: LifecycleMessage, arriving: Set<string>, events: EventSink): void {
  const vm = { vmId: domain.uuid, name: domain.name };
  switch (event) {
    case LifecycleEvent.started:
      if (detail === StartedDetail.migrated) arriving.add(domain.uuid);
      else events.emit({ kind: 'vmStarted', ...vm, reason: STARTED[detail] ?? 'unknown' });
      return;
    case LifecycleEvent.resumed:
    case LifecycleEvent.suspended:
      if (arriving.delete(domain.uuid)) events.emit({ kind: 'vmMigrated', ...vm, reason: 'arrived' });
      return;
    case LifecycleEvent.stopped:
      if (arriving.delete(domain.uuid)) return; // it has never been here
      if (detail === StoppedDetail.migrated) events.emit({ kind: 'vmMigrated', ...vm, reason: 'left' });
      else events.emit({ kind: 'vmStopped', ...vm, reason: STOPPED[detail] ?? 'unknown' });
      return;
  }
}

const STARTED: Readonly<Record<number, VmStartedEvent['reason']>> = {
  [StartedDetail.booted]: 'booted',
  [StartedDetail.restored]: 'restored',
  [StartedDetail.fromSnapshot]: 'fromSnapshot',
  [StartedDetail.wakeup]: 'wakeup',
};

const STOPPED: Readonly<Record<number, VmStoppedEvent['reason']>> = {
  [StoppedDetail.shutdown]: 'shutdown',
  [StoppedDetail.destroyed]: 'destroyed',
  [StoppedDetail.crashed]: 'crashed',
  [StoppedDetail.saved]: 'saved',
  [StoppedDetail.failed]: 'failed',
  [StoppedDetail.fromSnapshot]: 'fromSnapshot',
};
