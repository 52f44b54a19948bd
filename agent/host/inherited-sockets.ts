/** Listening sockets that systemd has opened for us (sd_listen_fds(3)), by the names that their units give them. */
import { readFileSync, readlinkSync } from 'node:fs';
import type { Server } from 'node:net';

/** The first of them, SD_LISTEN_FDS_START. */
const FIRST_FD = 3;
/** @param name as `FileDescriptorName=` has it in the unit that the generator makes */
function remedy(name: string): string {
  const unit = name === 'rpc' ? 'vmdiskd' : `vmdiskd-${name}`;
  const service = name === 'gateway' ? 'vmdiskd-gateway' : 'vmdiskd';
  return `its unit is older than the configuration, or not running: systemctl daemon-reload, then systemctl restart ${unit}.socket ${service}.service`;
}

/** What systemd listens on is not what the configuration has: to try again changes nothing. */
export class StaleSocketsError extends Error {
  override readonly name = 'StaleSocketsError';
}

export class InheritedSockets {
  readonly #byName: ReadonlyMap<string, number[]>;

  /** @param byName descriptors by FileDescriptorName=, those of one name in the order of their unit */
  constructor(byName: ReadonlyMap<string, number[]>) {
    this.#byName = byName;
  }

  /** What this process was given; none where it was started otherwise. The variables are taken out, for they are for us alone. */
  static ofProcess(env: NodeJS.ProcessEnv = process.env, pid = process.pid): InheritedSockets {
    const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES } = env;
    for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete env[name];
    const byName = new Map<string, number[]>();
    if (LISTEN_PID !== String(pid)) return new InheritedSockets(byName);
    const names = (LISTEN_FDNAMES ?? '').split(':');
    for (let index = 0; index < Number(LISTEN_FDS); index++) {
      const name = names[index] ?? '';
      byName.set(name, [...(byName.get(name) ?? []), FIRST_FD + index]);
    }
    return new InheritedSockets(byName);
  }

  /**
   * The next descriptor of that name; undefined where we were given none at all, and are to listen by ourselves.
   * @throws Error where we were given others: in a network of our own nobody would reach what we open there
   */
  take(name: string): number | undefined {
    if (this.#byName.size === 0) return undefined;
    const fd = this.#byName.get(name)?.shift();
    if (fd === undefined)
      throw new StaleSocketsError(`systemd has passed no further socket "${name}": ${remedy(name)}`);
    return fd;
  }

  /** @throws Error where one is left: clients would connect to it, and never be answered */
  assertAllTaken(): void {
    for (const [name, fds] of this.#byName) {
      if (fds.length > 0)
        throw new StaleSocketsError(`systemd has passed a socket "${name}" too many: ${remedy(name)}`);
    }
  }
}

/** None: whoever starts us has opened nothing for us. */
export const noInheritedSockets = new InheritedSockets(new Map());

/**
 * Listens on a descriptor.
 * @param expected the path, or the port, that the configuration has for it
 * @throws Error where it is another
 */
export async function listenOnDescriptor(
  server: Server,
  fd: number,
  expected: string | number,
): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ fd }, () => {
      server.off('error', reject);
      resolve();
    });
  });
  const address = server.address();
  const isTcp = typeof address === 'object' && address !== null;
  const at = isTcp ? address.port : pathOf(fd);
  if (at !== undefined && at !== expected)
    throw new StaleSocketsError(
      `systemd listens on ${at}, the configuration on ${expected}: systemctl daemon-reload, then restart its socket and the service`,
    );
}

/**
 * Where a listening UNIX socket is: Node does not say it of one that it did not bind. Undefined where the kernel does not,
 * since its list is of the sockets that were made in this network namespace; proc(5).
 */
function pathOf(fd: number): string | undefined {
  const [, inode] = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/self/fd/${fd}`)) ?? [];
  const lines = readFileSync('/proc/net/unix', 'utf8').split('\n');
  // Num RefCount Protocol Flags Type St Inode Path
  const fields = lines.map((line) => line.trim().split(/\s+/)).find((parts) => parts[6] === inode);
  return fields?.slice(7).join(' ');
}
