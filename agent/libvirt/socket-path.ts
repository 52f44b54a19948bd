/** Where libvirtd listens for a connection URI. */
import { access } from 'node:fs/promises';
import { join } from 'node:path';

/** The parts of the environment that decide where a user's own daemon listens. */
export type Environment = Readonly<Record<string, string | undefined>>;

const systemDirectory = '/run/libvirt';

/**
 * As GLib's g_get_user_runtime_dir, which libvirt asks (virGetUserRuntimeDirectory): without XDG_RUNTIME_DIR it is the
 * cache directory.
 */
function sessionDirectory(environment: Environment): string {
  const { XDG_RUNTIME_DIR: runtime, XDG_CACHE_HOME: cache, HOME: home } = environment;
  const base = runtime || cache || (home ? join(home, '.cache') : undefined);
  if (base === undefined) {
    throw new TypeError(
      'qemu:///session needs XDG_RUNTIME_DIR or HOME to find the socket; or name the socket itself',
    );
  }
  return join(base, 'libvirt');
}

/**
 * The socket for `uri`, by libvirt's own rule (remoteGetUNIXSocket, src/remote/remote_sockets.c): the modular daemon's
 * where that exists, else the monolithic one's. To be asked before each attempt, since a host may change over.
 *
 * @param uri `qemu:///system` or `qemu:///session`; anything else needs the socket's path from the caller.
 * @param directory replaces the directory that follows from the URI.
 */
export async function findSocket(
  uri: string,
  environment: Environment = process.env,
  directory?: string,
): Promise<string> {
  if (uri !== 'qemu:///system' && uri !== 'qemu:///session') {
    throw new TypeError(
      `no socket is known for ${uri}: use qemu:///system or qemu:///session, or name the socket itself`,
    );
  }
  const folder = directory ?? (uri === 'qemu:///system' ? systemDirectory : sessionDirectory(environment));
  const modular = join(folder, 'virtqemud-sock');
  try {
    await access(modular);
    return modular;
  } catch {
    return join(folder, 'libvirt-sock');
  }
}
