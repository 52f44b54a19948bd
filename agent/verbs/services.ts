import type { AccessPolicy } from '../access/policy.js';
import type { Config } from '../config/config.js';
import type { HostFacts } from '../domains/host-facts.js';
import type { EventWaits } from '../events/waits.js';
import type { BackupPreparation } from '../exports/backups.js';
import type { ExportCall, ExportsContext } from '../exports/context.js';
import type { HostDrain } from '../exports/drain.js';
import type { ExportPreparation } from '../exports/prepare.js';
import type { Recovery } from '../exports/recovery.js';
import type { SnapshotCreation } from '../points-in-time/create-snapshot.js';
import type { SnapshotDeletion } from '../points-in-time/delete-snapshot.js';
import type { Call } from './verb.js';

/** What the verbs call. */
export interface Services {
  /** As it is in force now. */
  config(): Config;
  access: AccessPolicy;
  exports: ExportsContext;
  preparation: ExportPreparation;
  backupPreparation: BackupPreparation;
  snapshotCreation: SnapshotCreation;
  snapshotDeletion: SnapshotDeletion;
  hostDrain: HostDrain;
  hostFacts: HostFacts;
  recovery: Recovery;
  eventWaits: EventWaits;
}

/** What the operations on exports need of a call. */
export function exportCall({ identity, signal }: Call): ExportCall {
  return { owner: identity.name, signal };
}
