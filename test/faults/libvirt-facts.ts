/** What libvirt and QEMU say of the VMs of a private host, asked with libvirt's own tool from outside. */
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Host } from '../host/host.js';

const ASK_MS = 60_000;
const AWAY_MS = 30_000;

/** What is known of a VM. */
export interface VmFacts {
  name: string;
  uuid: string;
  /** QEMU's, inside; null: it does not run. */
  pid: number | null;
  /** Of the backup job that runs. */
  backupSocket: string | null;
  /** Files of its scratch images. */
  scratch: string[];
  checkpoints: string[];
  snapshots: string[];
  /** Files of all layers of its disks, as the running, or else the stored configuration has them. */
  files: string[];
  /** Of disks that were plugged in by the agent. */
  aliases: { live: string[]; stored: string[] };
  /** QEMU's block graph; empty where it does not run. */
  nodes: { name: string; driver: string; file: string; bitmaps: string[] }[];
  /** QEMU's jobs and block exports. */
  jobs: string[];
  exports: string[];
}

/** How virsh reaches the host's libvirt without entering the host: a UNIX socket is where its file is. */
const uriOf = (host: Host): string => `qemu+unix:///system?socket=${host.libvirtSocket}`;

/** Runs virsh outside, which takes a tenth of the time that it takes inside. A failed command is no error. */
function ask(host: Host, args: readonly string[]): Promise<{ stdout: string; failed: boolean }> {
  return new Promise((resolve) => {
    const line = ['--connect', uriOf(host), '--quiet', ...args];
    execFile('virsh', line, { timeout: ASK_MS, maxBuffer: 1 << 26 }, (error, stdout, stderr) =>
      resolve({ stdout: error === null ? stdout : stdout + stderr, failed: error !== null }),
    );
  });
}

/** virsh, which waits for a libvirtd that was killed and comes back; throws with its words when it fails. */
export async function virsh(host: Host, ...args: string[]): Promise<string> {
  const deadline = Date.now() + AWAY_MS;
  for (;;) {
    const { stdout, failed } = await ask(host, args);
    if (!failed) return stdout;
    const isAway = /Failed to connect socket/.test(stdout) && Date.now() < deadline;
    if (!isAway) throw new Error(`virsh ${args.join(' ')}: ${stdout.trim()}`);
    await sleep(200);
  }
}

const QUESTIONS = {
  live: 'dumpxml VM',
  stored: 'dumpxml --inactive VM',
  backup: 'backup-dumpxml VM',
  checkpoints: 'checkpoint-list --name VM',
  snapshots: 'snapshot-list --name VM',
  nodes: `qemu-monitor-command VM '{"execute":"query-named-block-nodes","arguments":{"flat":true}}'`,
  jobs: `qemu-monitor-command VM '{"execute":"query-jobs"}'`,
  exports: `qemu-monitor-command VM '{"execute":"query-block-exports"}'`,
};
type Question = keyof typeof QUESTIONS;

/** @throws where libvirt does not answer */
export async function vmFacts(host: Host, names: readonly string[]): Promise<VmFacts[]> {
  const questions = Object.entries(QUESTIONS);
  const commands = names.flatMap((vm) =>
    questions.flatMap(([key, command]) => [`echo '=== ${vm} ${key}'`, command.replace('VM', vm)]),
  );
  const { stdout } = await ask(host, [['uri', ...commands].join('; ')]);
  if (!stdout.includes('=== ')) throw new Error(`libvirt does not answer: ${stdout}`);
  return names.map((name) => {
    const said = (key: Question): string => {
      // virsh's echo ends no line, so that the answer follows at once, and the next question after an empty one.
      const begin = stdout.indexOf(`=== ${name} ${key}`) + `=== ${name} ${key}`.length;
      const end = stdout.indexOf('=== ', begin);
      return stdout.slice(begin, end === -1 ? undefined : end);
    };
    return parse(host, name, said);
  });
}

interface Node {
  'node-name': string;
  drv: string;
  file: string;
  'dirty-bitmaps'?: { name?: string }[];
}

function parse(host: Host, name: string, said: (key: Question) => string): VmFacts {
  const live = said('live');
  if (!live.includes('<domain')) throw new Error(`libvirt says nothing of ${name}: ${live.trim()}`);
  const backup = said('backup');
  const answer = <T>(key: Question): T[] => {
    const text = said(key).trim();
    return text.startsWith('{') ? JSON.parse(text.split('\n')[0] ?? '').return : [];
  };
  const lines = (key: Question) =>
    said(key)
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => line !== '');
  return {
    name,
    uuid: all(live, /<uuid>([^<]+)/g)[0] ?? '',
    pid: pidOf(host, name),
    backupSocket: all(backup, /<server [^>]*socket='([^']+)'/g)[0] ?? null,
    scratch: all(backup, /<scratch file='([^']+)'/g),
    checkpoints: lines('checkpoints'),
    snapshots: lines('snapshots'),
    files: all(live, /<source file='([^']+)'/g),
    aliases: { live: all(live, OURS), stored: all(said('stored'), OURS) },
    nodes: answer<Node>('nodes').map((node) => ({
      name: node['node-name'],
      driver: node.drv,
      file: node.file,
      bitmaps: (node['dirty-bitmaps'] ?? []).flatMap((bitmap) => bitmap.name ?? []),
    })),
    jobs: answer<{ id: string }>('jobs').map(({ id }) => id),
    exports: answer<{ id: string }>('exports').map(({ id }) => id),
  };
}

const OURS = /<alias name='(ua-vmdiskd-[^']+)'/g;
const all = (text: string, pattern: RegExp): string[] =>
  [...text.matchAll(pattern)].map((match) => match[1] ?? '');

/** Of a running VM; libvirt removes the file when it notices that QEMU is gone. */
export function pidOf(host: Host, vm: string): number | null {
  const file = host.path(`/run/libvirt/qemu/${vm}.pid`);
  if (!existsSync(file)) return null;
  const pid = Number(readFileSync(file, 'utf8'));
  return Number.isInteger(pid) && pid > 0 && existsSync(`/proc/${host.pid}/root/proc/${pid}`) ? pid : null;
}
