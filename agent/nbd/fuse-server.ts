import type { ProcessSpec } from '../host/process.js';
import { encodeString } from './payload.js';
import { formatNbdUri, maxSocketPath } from './uri.js';

/** One export of one NBD server as one plain file. */
export interface FuseFileOptions {
  /** Unique on the host: `ProcessSpec.name`. */
  readonly name: string;
  /** The UNIX socket of the export's own NBD server. */
  readonly socket: string;
  readonly exportName: string;
  /** Where the file appears: absolute and canonical, in a directory that nobody else can write to. */
  readonly file: string;
  readonly writable: boolean;
  /** The account that may read (and write) it; absent: root alone. */
  readonly owner?: { readonly uid: number; readonly gid: number };
  readonly stderrFile: string;
}

/**
 * What to run: qemu-storage-daemon for a file to read, nbdfuse for one to write to. Either is a client of the export's
 * server and parses no image. QEMU's FUSE export keeps a request to write in a buffer that the next request may
 * overwrite before its data has gone out: with O_DIRECT and asynchronous I/O, or a shared mapping, it silently writes
 * other data than it was given (QEMU up to 10.1; `fuse: Copy write buffer content before polling`,
 * https://lore.kernel.org/qemu-devel/20250701114437.207419-2-hreitz@redhat.com). Reading is not affected, and there
 * QEMU reports a dead server as EIO and connects again by itself, where nbdfuse aborts.
 */
export function fuseFileProcess(options: FuseFileOptions): ProcessSpec {
  const { name, socket, exportName, stderrFile } = options;
  if (Buffer.byteLength(socket) > maxSocketPath) {
    throw new TypeError(`The path of a socket has at most ${maxSocketPath} bytes: ${socket}`);
  }
  encodeString(exportName);
  const command = options.writable ? nbdfuse(options) : storageDaemon(options);
  return { name, ...command, stderrFile };
}

/** Whether a command line is that of a server of this file. */
export function isServerOf(args: readonly string[], file: string): boolean {
  return args.includes(exportArgument(file)) || (args.includes(file) && args.includes(permissions));
}

type Command = Pick<ProcessSpec, 'program' | 'args'>;

function storageDaemon({ socket, exportName, file }: FuseFileOptions): Command {
  const blockdev = {
    'node-name': 'disk',
    driver: 'nbd',
    server: { type: 'unix', path: socket },
    export: exportName,
    'read-only': true,
    // Seconds to hold back requests while nobody serves: none, a reader is told at once.
    'reconnect-delay': 0,
  };
  return {
    program: 'qemu-storage-daemon',
    args: ['--blockdev', JSON.stringify(blockdev), exportArgument(file)],
  };
}

/** For others too, so that it can be given to an account later; until then it is root's with 0400. */
const exportArgument = (file: string): string =>
  `--export=${JSON.stringify({ type: 'fuse', id: 'file', 'node-name': 'disk', mountpoint: file, 'allow-other': 'on' })}`;

/** Who may do what is for the kernel to judge, by owner and mode: nbdfuse itself asks nobody. */
const permissions = 'default_permissions';

function nbdfuse({ socket, exportName, file, owner = { uid: 0, gid: 0 } }: FuseFileOptions): Command {
  const mountOptions = ['allow_other', permissions, `uid=${owner.uid}`, `gid=${owner.gid}`, 'umask=0177'];
  const uri = formatNbdUri({ address: { transport: 'unix', socket }, tls: false, exportName });
  // One connection: the others that the server has are for its readers over NBD.
  return {
    program: 'nbdfuse',
    args: ['--connections=1', ...mountOptions.flatMap((option) => ['-o', option]), file, uri],
  };
}
