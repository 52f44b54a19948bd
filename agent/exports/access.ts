import { InvalidParams } from '../errors.js';
import { setSocketAccess } from '../host/socket-access.js';
import type { ExportsContext } from './context.js';
import type { ExportRecord } from './record.js';

/**
 * Lets in at a server's socket exactly those that its exports name: their `user`, and QEMU's group while a drive is
 * plugged in. The exports of one backup share QEMU's server and its socket: who may connect for one of them may read
 * them all, and they can name one user between them.
 * @param records the exports as they are to be
 * @throws InvalidParams for a second user at the same socket
 */
export async function applySocketAccess(
  { settings }: ExportsContext,
  records: readonly ExportRecord[],
  socket: string,
): Promise<void> {
  const here = records.filter(({ server, state }) => server?.socket === socket && state !== 'ended');
  const users = [
    ...new Set(here.map(({ params }) => params.transport?.user).filter((user) => user !== undefined)),
  ];
  const [user, another] = users;
  if (another !== undefined) {
    const message = `names another user (${another}) than the other exports of this backup (${user}), and they share one socket`;
    throw new InvalidParams(`Invalid params: /transport/user ${message}.`, [
      { path: '/transport/user', message },
    ]);
  }
  const pluggedIn = here.some(({ attachments }) => attachments.length > 0);
  await setSocketAccess(socket, { user: user ?? null, group: pluggedIn ? settings.qemuGroup : null });
}
