import { constants } from 'node:fs';
import { chmod, chown, open } from 'node:fs/promises';
import { gidOf, uidOf } from './accounts.js';

/** Names a file without opening it: open(2). Node has no word for it. */
export const O_PATH = 0o10000000;

/** Who may connect to an export's socket, besides root. */
export interface SocketAccess {
  /** A local account by name; null: root alone. */
  user: string | null;
  /** QEMU's group, while the drive is plugged into a VM; null: no group. */
  group: string | null;
}

/**
 * Gives the socket the owner and mode that let in exactly those accounts: to connect to a UNIX socket takes
 * write permission on it (unix(7)), and mode bits say no more than one user and one group.
 * @throws AgentError `NotAuthorized` for an account or group that this host does not have
 */
export async function setSocketAccess(socket: string, { user, group }: SocketAccess): Promise<void> {
  const uid = user === null ? 0 : await uidOf(user);
  const gid = group === null ? 0 : await gidOf(group);
  // Held before it is looked at: a server that was taken over may have put a link to something else there.
  const held = await open(socket, O_PATH | constants.O_NOFOLLOW);
  try {
    if (!(await held.stat()).isSocket()) throw new Error(`${socket} is no socket`);
    const name = `/proc/self/fd/${held.fd}`;
    await chmod(name, 0o600); // closed while the owner changes: nobody gets in with the old mode and new group
    await chown(name, uid, gid);
    if (group !== null) await chmod(name, 0o660);
  } finally {
    await held.close();
  }
}
