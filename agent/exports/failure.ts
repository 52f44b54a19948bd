import { AgentError, type Cause } from '../errors.js';
import { readStderrTail } from '../host/process-log.js';
import { NbdError } from '../nbd/error.js';
import { type ExportsContext, exportFiles } from './context.js';
import type { ExportRecord } from './record.js';
import { isWriter } from './registry.js';
import { whatIsLeft } from './what-is-left.js';

/** What a verb that needs a ready export is told of one that is not. */
export function failed({ exportId, state, error }: ExportRecord, cause?: unknown): AgentError {
  const why = error === null ? `is ${state}.` : `has failed: ${error.message}`;
  return new AgentError(
    'ExportFailed',
    `The export "${exportId}" ${why} Tear it down and prepare a new one.`,
    { exportId, cause },
  );
}

/** Why what serves an export is dead; null while it lives. The watch writes it down a second later at most. */
export async function deathOf(context: ExportsContext, record: ExportRecord): Promise<Cause | null> {
  const { processes, settings } = context;
  const base = await deathOfBase(context, record);
  if (base !== null) return base;
  const { exportId, overlay, file } = record;
  const files = exportFiles(settings.run, exportId);
  if (overlay !== null && !(await processes.isAlive(overlay.process)))
    return died('the qemu-nbd of its throw-away layer', files.overlayStderr);
  if (file !== null && !(await processes.isAlive(file.process)))
    return withImage(context, record, await died('what serves its file', files.fileStderr));
  return null;
}

async function deathOfBase(context: ExportsContext, record: ExportRecord): Promise<Cause | null> {
  const { processes, backups, settings } = context;
  const { exportId, server } = record;
  if (server?.kind === 'backup') {
    const backup = backups.find(server.backupId);
    if (backup?.state === 'running') return null;
    return { name: 'ExportFailed', message: backup?.error?.message ?? 'its backup has ended.' };
  }
  if (server !== null && (await processes.isAlive(server.process))) return null;
  return withImage(context, record, await died('its qemu-nbd', exportFiles(settings.run, exportId).stderr));
}

/** With the state of the image that was written to. */
async function withImage({ points }: ExportsContext, record: ExportRecord, death: Cause): Promise<Cause> {
  if (!isWriter(record)) return death;
  return { ...death, message: `${death.message} ${await whatIsLeft(record, points.allowedRoots)}` };
}

async function died(what: string, stderrFile: string): Promise<Cause> {
  const said = (await readStderrTail(stderrFile)).split('\n').at(-1) ?? '';
  const message = `${what} has died${said === '' ? ' without a word' : ` (${said})`}.`;
  return { name: 'ExportFailed', message };
}

/** Does what needs the export's server; where that fails to answer the caller is told why. */
export async function whileServed<T>(
  context: ExportsContext,
  record: ExportRecord,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (!(cause instanceof NbdError)) throw cause;
    const error = (await deathOf(context, record)) ?? {
      name: 'ExportFailed',
      message: `its server does not answer as it should (${cause.message.replace(/\.$/, '')}).`,
    };
    throw failed({ ...record, error }, cause);
  }
}
