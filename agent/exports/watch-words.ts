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
 * it is closed. A server that has died is heard out. What was there before the daemon began, its former run has passed on.
 */
export function watchWords(context: Context): { close(): void } {
  const { registry, log } = context;
  /** How far each file was read; null: as far as it goes at the first look. */
  const read = new Map<string, number | null>();
  for (const record of registry.allLive())
    for (const { path } of filesOf(context, record)) read.set(path, null);
  let looking = false;
  const look = async () => {
    if (looking) return;
    looking = true;
    try {
      const files = registry.allLive().flatMap((record) => filesOf(context, record));
      const paths = new Set(files.map(({ path }) => path));
      for (const path of read.keys()) if (!paths.has(path)) read.delete(path);
      for (const file of files) await passOn(context, file, read);
    } finally {
      looking = false;
    }
  };
  const timer = setInterval(() => {
    look().catch((err: unknown) => log.error({ err }, 'what the servers say could not be read'));
  }, LOOK_MS);
  return { close: () => clearInterval(timer) };
}

interface WordsFile {
  exportId: string;
  /** The server's unit; where it is a child of the daemon, the one that it would have. */
  unit: string;
  path: string;
}

function filesOf({ settings }: Context, record: ExportRecord): WordsFile[] {
  const { exportId, serverName, server, overlay, file } = record;
  const { stderr, overlayStderr, fileStderr } = exportFiles(settings.run, exportId);
  const of = (name: string, path: string) => ({ exportId, unit: `${name}.service`, path });
  return [
    ...(server?.kind === 'qemu-nbd' ? [of(serverName, stderr)] : []),
    ...(overlay === null ? [] : [of(overlay.process.name, overlayStderr)]),
    ...(file === null ? [] : [of(file.process.name, fileStderr)]),
  ];
}

async function passOn(
  { log }: Context,
  { exportId, unit, path }: WordsFile,
  read: Map<string, number | null>,
): Promise<void> {
  const known = read.get(path);
  const from = known === null ? Number.MAX_SAFE_INTEGER : (known ?? 0);
  const found = await readStderrFrom(path, from, MAX_BYTES);
  if (found === undefined) return;
  const { size } = found;
  // As it was at the start, or it was emptied since.
  if (known === null || size < from) {
    read.set(path, known === null ? size : 0);
    return;
  }
  // A line that is not whole yet is for the next look, unless it is longer than any should be.
  const end = found.text.lastIndexOf(0x0a) + 1;
  if (end === 0 && found.text.length < MAX_BYTES) return;
  const whole = found.text.subarray(0, end === 0 ? found.text.length : end);
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
}
