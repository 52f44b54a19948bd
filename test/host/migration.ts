import { chmodSync, chownSync, mkdirSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { account, groupId } from './accounts.js';
import type { Host, RunResult } from './host.js';
import { poll } from './poll.js';

/** Where QEMU listens on the host that a VM migrates to, and the test on the one that it leaves. Inside path. */
const DIRECTORY = '/run/migration';
/** Bytes that are let through at first: the handshake and some of the memory. */
const FIRST_BYTES = 64 * 1024;
const MIGRATION_DEADLINE_MS = 120_000;

/** A live migration that is under way on both sides and comes no further until it is told to. */
export interface Migration {
  /** Lets the memory through; returns when virsh has ended, well. */
  complete(): Promise<void>;
  /** Ends it on the host that the VM would have left; returns when virsh has ended. */
  abort(): Promise<void>;
}

/**
 * Begins the live migration of a VM between two private hosts, whose images lie where both see them. The hosts have
 * networks of their own, so QEMU's stream goes over a UNIX socket: the source finds the test's own relay at the path
 * at which QEMU listens on the destination. The relay holds the stream, so that nothing depends on how fast it is.
 */
export async function startMigration(from: Host, to: Host, vm: string): Promise<Migration> {
  for (const host of [from, to]) {
    const dir = host.path(DIRECTORY);
    mkdirSync(dir, { recursive: true });
    chownSync(dir, account(host.dir, 'libvirt-qemu').uid, groupId(host.dir, 'libvirt-qemu'));
  }
  const socket = `${DIRECTORY}/${vm}.sock`;
  const relay = await startRelay(from.path(socket), to.path(socket));
  let ended: RunResult | undefined;
  const virsh = from
    .run(
      'virsh',
      ['--connect', 'qemu:///system', '--quiet', 'migrate', '--live', '--persistent', '--unsafe', vm].concat(
        `qemu+unix:///system?socket=${to.libvirtSocket}`,
        ['--migrateuri', `unix://${socket}`],
      ),
      { timeoutMs: MIGRATION_DEADLINE_MS },
    )
    .then((result) => {
      ended = result;
      relay.close();
      return result;
    });
  await poll(`${vm} to be migrating`, MIGRATION_DEADLINE_MS, async () => {
    if (ended !== undefined) throw new Error(`The migration of ${vm} ended at once: ${ended.stderr}`);
    return relay.holds() && (await from.virsh('domjobinfo', vm)).includes('Outgoing migration');
  });
  return {
    complete: async () => {
      relay.release();
      const { exitCode, stderr } = await virsh;
      if (exitCode !== 0) throw new Error(`The migration of ${vm} failed: ${stderr}`);
    },
    abort: async () => {
      await from.virsh('domjobabort', vm);
      relay.release();
      await virsh;
    },
  };
}

interface Relay {
  /** Whether bytes are waiting. */
  holds(): boolean;
  release(): void;
  close(): void;
}

async function startRelay(at: string, to: string): Promise<Relay> {
  let open = false;
  const sockets: Socket[] = [];
  const server = createServer((source) => {
    const destination = connect(to);
    sockets.push(source, destination);
    let seen = 0;
    source.on('data', (chunk: Buffer) => {
      destination.write(chunk);
      seen += chunk.length;
      if (!open && seen > FIRST_BYTES) source.pause();
    });
    destination.pipe(source);
    source.on('close', () => destination.end());
    for (const one of [source, destination]) one.on('error', () => one.destroy());
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(at, resolve);
  });
  chmodSync(at, 0o666);
  return {
    holds: () => sockets.some((socket) => socket.isPaused()),
    release: () => {
      open = true;
      for (const socket of sockets) if (socket.isPaused()) socket.resume();
    },
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
