import { chmod, chown } from 'node:fs/promises';
import { gidOf, uidOf } from './accounts.js';

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
  await chmod(socket, 0o600); // closed while the owner changes: nobody gets in with the old mode and new group
  await chown(socket, uid, gid);
  if (group !== null) await chmod(socket, 0o660);
}
