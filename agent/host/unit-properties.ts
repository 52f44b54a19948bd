/** What a transient unit is given: properties of systemd.exec(5), systemd.service(5) and systemd.resource-control(5). */
import { type ConfinedView, confinedName } from './confine.js';
import { minimalEnvironment } from './process-tool.js';

/** One `Name=value` each, as systemd-run(1) takes it by `--property`. */
export type Properties = readonly string[];

/** Everything of this daemon stands below it, to be seen and limited in one place. */
const slice = 'vmdiskd.slice';

export const unitFile = (name: string): string => `${name}.service`;

/** The arguments of systemd-run(1) for a program in a unit of its own, which leaves nothing of itself when it has ended. */
export function systemdRunArguments(
  {
    name,
    properties,
    options,
    env = {},
  }: {
    name: string;
    properties: Properties;
    options: readonly string[];
    /** Beside the minimal one. */
    env?: Readonly<Record<string, string>> | undefined;
  },
  command: readonly string[],
): string[] {
  return [
    '--quiet',
    '--collect',
    `--unit=${unitFile(name)}`,
    `--slice=${slice}`,
    ...options,
    ...Object.entries({ ...minimalEnvironment, ...env }).map(([key, value]) => `--setenv=${key}=${value}`),
    ...properties.map((property) => `--property=${property}`),
    '--',
    // systemd puts variables in: systemd.service(5), "Command lines".
    ...command.map((word) => word.replaceAll('$', '$$$$')),
  ];
}

/** What none of our programs needs. */
const everywhere: Properties = [
  'IPAddressDeny=any',
  'KeyringMode=private',
  'LockPersonality=yes',
  'MemoryDenyWriteExecute=yes',
  'NoNewPrivileges=yes',
  'ProtectClock=yes',
  'RestrictAddressFamilies=AF_UNIX',
  'RestrictNamespaces=yes',
  'RestrictRealtime=yes',
  'RestrictSUIDSGID=yes',
  'SystemCallArchitectures=native',
  'SystemCallErrorNumber=EPERM',
];

/**
 * For a program that parses images: as an account of its own, in a root in which there are /usr to read, a /dev of the
 * harmless devices, and the files of its view. Each of these is bound by its name, which opens nothing; the program's
 * own shell compares it with the file that was checked (`checkedCommand`).
 * @param view with names that systemd takes as they stand (`plainlyNamed`)
 */
export function confinedProperties({ confinement, files, directory }: ConfinedView): Properties {
  const { root, gid } = confinement;
  // Open: one privilege, to reach those files whoever owns them (0600 of root, or of QEMU's account).
  const capability = files.some(({ write }) => write) ? 'CAP_DAC_OVERRIDE' : 'CAP_DAC_READ_SEARCH';
  const tops = directory === undefined ? [] : [directory.split('/')[1]];
  const binds = files.map(
    ({ path, write }, i) => `${write ? 'BindPaths' : 'BindReadOnlyPaths'}=${path}:${confinedName(i)}:norbind`,
  );
  // Open: PrivateUsers=, in which the owners of those files would have no numbers. What that privilege could open by
  // handles is refused by system call.
  const devices = files
    .filter(({ device }) => device)
    .map(({ path, write }) => `DeviceAllow=${path} ${write ? 'rw' : 'r'}`);
  return [
    // An account for it alone, which is nobody's afterwards: exports cannot signal each other. Its group may make a socket there.
    'DynamicUser=yes',
    `Group=${gid}`,
    `AmbientCapabilities=${capability}`,
    `CapabilityBoundingSet=${capability}`,
    `RootDirectory=${root}`,
    'MountAPIVFS=yes',
    'BindReadOnlyPaths=/usr',
    // For what is bound to be there in its view alone.
    `TemporaryFileSystem=${[...new Set(['images', 'run', 'var', ...tops])].map((top) => `/${top}:ro`).join(' ')}`,
    ...(directory === undefined ? [] : [`BindPaths=${directory}`]),
    ...binds,
    ...devices,
    'PrivateDevices=yes',
    'PrivateNetwork=yes',
    'PrivateIPC=yes',
    'PrivateMounts=yes',
    'PrivateTmp=yes',
    'ProtectSystem=strict',
    'ProtectHome=yes',
    'ProtectProc=invisible',
    'ProcSubset=pid',
    'ProtectHostname=yes',
    'ProtectKernelModules=yes',
    'ProtectKernelTunables=yes',
    'ProtectControlGroups=yes',
    'RemoveIPC=yes',
    'ProtectKernelLogs=yes',
    ...everywhere,
    'SystemCallFilter=@system-service',
    // open_by_handle_at is among the privileged ones, ptrace in none of them.
    'SystemCallFilter=~@privileged @resources process_vm_readv process_vm_writev',
  ];
}

/**
 * For a program whose mounts everybody is to see: as root in the host's own mount namespace, which each directive about
 * paths would take away, with the privilege to mount, and to reach sockets and mount points of other owners.
 */
export const mountingProperties: Properties = [
  // Open: User=, and of root's privileges these: to mount, and sockets and mount points of other owners.
  'CapabilityBoundingSet=CAP_SYS_ADMIN CAP_DAC_OVERRIDE CAP_CHOWN CAP_FOWNER',
  ...everywhere,
  // Open: Protect…=, Private…= and all else that is about paths.
  'SystemCallFilter=@system-service @mount',
  'SystemCallFilter=~@clock @cpu-emulation @debug @module @obsolete @raw-io @reboot @swap',
  'DevicePolicy=closed',
  'DeviceAllow=/dev/fuse rw',
];

/**
 * A server's. A qemu-nbd has some 20 MiB, and up to 32 MiB for each request at work (nbdcopy asks for 256 KiB, QEMU for
 * 2 MiB at a time). Where the host runs out of memory a backup goes before a VM does. At the host's end a writer
 * has time to store what it holds.
 */
export const serverProperties: Properties = [
  'MemoryHigh=1G',
  'MemoryMax=2G',
  'TasksMax=256',
  'LimitCORE=0',
  'OOMScoreAdjust=200',
  'TimeoutStopSec=5min',
];
