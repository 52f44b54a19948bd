import { readFileSync } from 'node:fs';
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cutStderr, readStderrFrom } from '../host/process-log.js';
import { type ExportsContext, exportFiles } from './context.js';
import type { ExportRecord } from './record.js';

/** How often it is looked. */
const LOOK_MS = 1000;
/** Of one server at one look: a client that breaks off again and again makes a line each time. */
const MAX_LINES = 10;
const MAX_BYTES = 16 * 1024;
const MAX_LINE = 1000;
/** A file that has been passed on and is longer is emptied: [paths] run is memory. */
const MAX_FILE = 1024 * 1024;

type Context = Pick<ExportsContext, 'registry' | 'settings' | 'log'>;

/**
 * Passes on what the exports' servers say on their stderr, each line once, with the export and the server's unit: to the log, until
 * it is closed. A server that has died is heard out, and so is one that spoke while no daemon ran: how far each file was read is
 * kept beside them. (Killed between the two, a daemon makes the next one say the last lines again.)
 */
export function watchWords(context: Context): { close(): void } {
  const { registry, settings, log } = context;
  const kept = join(settings.run, 'words.json');
  /** How far each file was read. */
  const read = new Map(Object.entries(readKept(kept)));
  let looking = false;
  const look = async () => {
    if (looking) return;
    looking = true;
    try {
      const files = registry.allLive().flatMap((record) => filesOf(context, record));
      const paths = new Set(files.map(({ path }) => path));
      let changed = false;
      for (const path of read.keys()) if (!paths.has(path)) changed = read.delete(path);
      for (const file of files) changed = (await passOn(context, file, read)) || changed;
      if (changed) await keep(kept, read);
    } finally {
      looking = false;
    }
  };
  const timer = setInterval(() => {
    look().catch((err: unknown) => log.error({ err }, 'what the servers say could not be read'));
  }, LOOK_MS);
  return { close: () => clearInterval(timer) };
}

function readKept(file: string): Record<string, number> {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Record<string, number>;
  } catch {
    return {}; // none yet, or half of one: lines twice are better than none
  }
}

async function keep(file: string, read: ReadonlyMap<string, number>): Promise<void> {
  await writeFile(`${file}.new`, JSON.stringify(Object.fromEntries(read)), { mode: 0o600 });
  await rename(`${file}.new`, file);
}

interface WordsFile {
  exportId: string;
  /** The server's unit; where it is a child of the daemon, the one that it would have. */
  unit: string;
  path: string;
  /** Whether the server has died: what it said last may have no end of line. */
  dead: boolean;
}

function filesOf({ settings }: Context, record: ExportRecord): WordsFile[] {
  const { exportId, serverName, server, overlay, file } = record;
  const { stderr, overlayStderr, fileStderr } = exportFiles(settings.run, exportId);
  const of = (name: string, path: string) => ({
    ...{ exportId, unit: `${name}.service`, path },
    dead: record.state === 'failed',
  });
  return [
    ...(server?.kind === 'qemu-nbd' ? [of(serverName, stderr)] : []),
    ...(overlay === null ? [] : [of(overlay.process.name, overlayStderr)]),
    ...(file === null ? [] : [of(file.process.name, fileStderr)]),
  ];
}

/** @returns whether there was anything */
async function passOn(
  { log }: Context,
  { exportId, unit, path, dead }: WordsFile,
  read: Map<string, number>,
): Promise<boolean> {
  const from = read.get(path) ?? 0;
  const found = await readStderrFrom(path, from, MAX_BYTES);
  if (found === undefined) return false;
  const { size } = found;
  // It was emptied since.
  if (size < from) {
    read.set(path, 0);
    return true;
  }
  // A line that is not whole yet is for the next look, unless it is longer than any should be or nothing follows.
  const end = found.text.lastIndexOf(0x0a) + 1;
  const all = end === 0 && (dead || found.text.length >= MAX_BYTES);
  if (end === 0 && !all) return false;
  const whole = found.text.subarray(0, all ? found.text.length : end);
  const lines = whole
    .toString('utf8')
    .split('\n')
    .filter((line) => line.trim() !== '');
  const about = { exportId, unit };
  for (const line of lines.slice(0, MAX_LINES)) log.warn(about, line.slice(0, MAX_LINE));
  const behind = size - from - whole.length;
  const skipped = behind > MAX_BYTES ? behind : 0;
  if (lines.length > MAX_LINES || skipped > 0) {
    log.warn(
      { ...about, lines: Math.max(0, lines.length - MAX_LINES), bytes: skipped },
      'this server says more than is passed on; the rest of it is left out',
    );
  }
  const upTo = from + whole.length + skipped;
  read.set(path, upTo === size && (await cutStderr(path, MAX_FILE)) ? 0 : upTo);
  return true;
}
