import { InvalidParams } from '../errors.js';
import { setSocketAccess } from '../host/socket-access.js';
import { backupFiles } from '../points-in-time/scratch.js';
import { type ExportsContext, STEP_MS } from './context.js';
import { tcpTransport } from './find-gateway.js';
import { type ExportParams, type ExportRecord, type ExportServer, frontOf } from './record.js';

/**
 * Lets in at a server's socket exactly those that its exports name: their `user`, and QEMU's group while a drive is
 * plugged in. The exports of one backup share QEMU's server and its socket: who may connect for one of them may read
 * them all, and they can name one user between them.
 * A socket that is gone lets nobody in.
 */
export async function applySocketAccess(context: ExportsContext, socket: string): Promise<void> {
  await atSocket(context, socket, () => letIn(context, context.registry.allLive(), socket));
}

/**
 * Lets in those that one more export of a backup names, and writes down that its server is the backup's: who comes second
 * at a socket sees what the first was given.
 * @param record with its server
 * @throws InvalidParams for a second user at the same socket
 */
export async function joinSocket(
  context: ExportsContext,
  record: ExportRecord & { server: ExportServer },
): Promise<ExportRecord> {
  const { registry } = context;
  const { socket } = record.server;
  return atSocket(context, socket, async () => {
    const others = registry.allLive().filter(({ exportId }) => exportId !== record.exportId);
    await letIn(context, [...others, record], socket);
    return registry.save(record);
  });
}

/** After one export of a backup has gone: the others keep their access. */
export async function closeAccess(context: ExportsContext, backupId: string): Promise<void> {
  const { socket } = backupFiles(context.points, backupId);
  await applySocketAccess(context, socket);
}

/** The innermost lock: nothing else is waited for under it. */
function atSocket<T>({ locks }: ExportsContext, socket: string, work: () => Promise<T>): Promise<T> {
  const holder = `the change of who may connect to ${socket}`;
  return locks.run(`access ${socket}`, holder, AbortSignal.timeout(STEP_MS), work);
}

async function letIn(
  { settings }: ExportsContext,
  records: readonly ExportRecord[],
  socket: string,
): Promise<void> {
  // At the server behind a throw-away layer none of its clients has any business.
  const here = records.filter((one) => frontOf(one)?.socket === socket && one.state !== 'ended');
  const users = [
    ...new Set(here.map(({ params }) => localUser(params)).filter((user) => user !== undefined)),
  ];
  const [user, another] = users;
  if (another !== undefined) {
    const message = `names another user (${another}) than the other exports of this backup (${user}), and they share one socket`;
    throw new InvalidParams(`Invalid params: /transport/user ${message}.`, [
      { path: '/transport/user', message },
    ]);
  }
  // By way of the gateway QEMU has no business at the socket.
  const pluggedIn = here.some(
    ({ attachments, params }) => attachments.length > 0 && tcpTransport(params) === undefined,
  );
  const access = { user: user ?? null, group: pluggedIn ? settings.qemuGroup : null };
  await setSocketAccess(socket, access).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error; // the server has died: who goes on to it finds that, and says so
  });
}

/** The local account that may connect, besides root; undefined: none. */
export function localUser({ transport }: Pick<ExportParams, 'transport'>): string | undefined {
  return transport?.type === 'unix' ? transport.user : undefined;
}
