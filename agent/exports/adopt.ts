import { isListening } from '../nbd/probe.js';
import { applySocketAccess } from './access.js';
import { type ExportsContext, exportLock } from './context.js';
import { publishLease } from './network.js';
import { type ExportRecord, frontOf } from './record.js';
import { finishHalfWay } from './unfinished.js';
import { declareFailed } from './watch.js';

/** Milliseconds that an adopted server has to take a connection, for the log. */
const LISTENING_MS = 2000;

/**
 * Makes the exports agree with their records, at start, all at the same time: what is whole is adopted, what was half-way
 * is finished or taken back. What cannot be in order before the signal fires is left to the watch.
 */
export async function adoptExports(context: ExportsContext, signal: AbortSignal): Promise<void> {
  const { registry, locks, log } = context;
  await Promise.all(
    registry.allLive().map(async ({ exportId }) => {
      try {
        await locks.run(
          exportLock(exportId),
          `the recovery of the export "${exportId}"`,
          signal,
          async () => {
            const record = registry.find(exportId);
            if (record?.state === 'ready') await adoptReady(context, record);
            else if (record !== undefined) await finishHalfWay(context, record, signal);
          },
        );
      } catch (error) {
        log.error({ exportId, err: error }, 'an export could not be brought in order yet');
      }
    }),
  );
}

async function adoptReady(context: ExportsContext, record: ExportRecord): Promise<void> {
  const { processes, log } = context;
  const { exportId, server } = record;
  // The daemon may have died between the record of an attachment and the mode of the socket, or between that of a lease and
  // the gateway's entry.
  const front = frontOf(record);
  if (front !== null) await applySocketAccess(context, front.socket);
  await publishLease(context, record);
  if (server?.kind === 'backup') return; // whether the backup lives is for the watch to say
  if (server === null || !(await processes.isAlive(server.process))) return declareFailed(context, exportId);
  const address = { transport: 'unix', socket: front?.socket ?? server.socket } as const;
  const listening = await isListening(address, { timeoutMs: LISTENING_MS });
  log.info({ exportId, listening }, 'adopted an export');
}
