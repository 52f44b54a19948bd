import { once } from 'node:events';
import { thawNoted } from '../domains/freeze.js';
import { EntryStore } from '../gateway/entry.js';
import type { LibvirtClient } from '../libvirt/index.js';
import { adoptBackups } from '../points-in-time/adopt-backups.js';
import { adoptSnapshots } from '../points-in-time/adopt-snapshots.js';
import type { SnapshotDeletion } from '../points-in-time/delete-snapshot.js';
import { adoptExports } from './adopt.js';
import type { ExportsContext } from './context.js';
import type { HostDrain } from './drain.js';
import { adoptDrives } from './foreign-drive.js';
import { removeStrays } from './strays.js';

/** Milliseconds that the start waits for libvirt. */
const FIRST_ATTEMPT_MS = 3000;
/** Between two looks for what no record names, and milliseconds for one. */
const STRAYS_MS = 60_000;

/** Makes the host agree with the records after a start. Until it is done no verb may meet what is half-way. */
export class Recovery {
  #done = false;

  get isDone(): boolean {
    return this.#done;
  }

  /** Never rejects: what fails, or is not done at its deadline, is in the log, and the watches go on with it. */
  async run(context: ExportsContext, deletion: SnapshotDeletion, drain: HostDrain): Promise<void> {
    const { libvirt, log, points } = context;
    const signal = AbortSignal.timeout(points.stateMs.recovery);
    const begun = performance.now();
    try {
      drain.endInterrupted();
      await firstAttempt(libvirt).catch((err) => log.warn({ err }, 'libvirt cannot be reached yet'));
      await new EntryStore(context.settings.run).removeTorn();
      thawNoted(context);
      await adoptBackups(context, signal);
      await adoptExports(context, signal);
      if (libvirt.status.connected) await adoptDrives(context, signal);
      adoptSnapshots(context, deletion);
      if (libvirt.status.connected) await removeStrays(context, signal);
    } catch (err) {
      log.error({ err }, 'the recovery is not complete yet');
    }
    this.#done = true;
    log.info({ ms: Math.round(performance.now() - begun) }, 'recovered');
  }
}

/** Removes what no record names once a minute, and when libvirt is back; until it is closed. */
export function sweepStrays(context: ExportsContext): { close(): void } {
  const { libvirt, log } = context;
  let busy = false;
  const sweep = async () => {
    if (busy || !libvirt.status.connected) return;
    busy = true;
    try {
      await removeStrays(context, AbortSignal.timeout(STRAYS_MS));
    } catch (err) {
      log.warn({ err }, 'could not look for what no record names; will look again');
    } finally {
      busy = false;
    }
  };
  const onBack = () => void sweep();
  const timer = setInterval(onBack, STRAYS_MS);
  libvirt.on('back', onBack);
  return {
    close() {
      clearInterval(timer);
      libvirt.off('back', onBack);
    },
  };
}

/**
 * Returns when libvirt answers, and throws when it has not: whoever calls right after the start should not meet a
 * daemon that is still connecting, and a start must not wait for a libvirt that is down or hangs.
 */
async function firstAttempt(libvirt: LibvirtClient): Promise<void> {
  const over = new AbortController();
  const signal = over.signal;
  try {
    const failed = once(libvirt, 'attemptFailed', { signal }).then(([error]) => Promise.reject(error));
    await Promise.race([libvirt.ready({ timeoutMs: FIRST_ATTEMPT_MS, signal }), failed]);
  } finally {
    over.abort();
  }
}
