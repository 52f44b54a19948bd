/** One line of the log as an entry of systemd's journal: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/ */

/** Members of a line that are fields of their own, to be searched by: `journalctl VMDISKD_EXPORT=mon`. */
const FIELDS: Readonly<Record<string, string>> = {
  verb: 'VMDISKD_VERB',
  vmId: 'VMDISKD_VM',
  disk: 'VMDISKD_DISK',
  exportId: 'VMDISKD_EXPORT',
  backupId: 'VMDISKD_BACKUP',
  jobId: 'VMDISKD_JOB',
  identity: 'VMDISKD_IDENTITY',
  outcome: 'VMDISKD_OUTCOME',
  ms: 'VMDISKD_DURATION_MS',
  module: 'VMDISKD_MODULE',
  // Entries about another unit, which its own `journalctl -u` shows too where root has written them (systemd.journal-fields(7)).
  unit: 'OBJECT_SYSTEMD_UNIT',
};

/** Bytes of one value: a datagram is at most as large as the socket's buffer, 208 KiB by default. */
const MAX_VALUE = 48 * 1024;

/** @param line of pino: a JSON object; without secrets @param priority of syslog, 0 to 7 */
export function journalEntry(line: string, priority: number, identifier: string, pid: number): Buffer {
  const { msg, level: _level, time: _time, ...members } = JSON.parse(line) as Record<string, unknown>;
  const fields: [name: string, value: string][] = [
    ['MESSAGE', sentence(typeof msg === 'string' ? msg : '', members)],
    ['PRIORITY', String(priority)],
    ['SYSLOG_IDENTIFIER', identifier],
    ['SYSLOG_PID', String(pid)],
  ];
  const rest: Record<string, unknown> = {};
  for (const [member, value] of Object.entries(members)) {
    const field = Object.hasOwn(FIELDS, member) ? FIELDS[member] : undefined;
    if (field === undefined || typeof value === 'object') rest[member] = value;
    else fields.push([field, String(value)]);
  }
  if (Object.keys(rest).length > 0) fields.push(['VMDISKD_FIELDS', JSON.stringify(rest)]);
  return Buffer.concat(fields.map(([name, value]) => encoded(name, value)));
}

/** What people read: of a verb what it was about and how it went, of all else the words of the line and why. */
function sentence(msg: string, members: Record<string, unknown>): string {
  const text = (name: string) => (members[name] === undefined ? undefined : String(members[name]));
  const because = [members.reason, members.err].flatMap(wordsOf)[0] ?? '';
  const { verb, outcome } = members;
  const about = ABOUT.flatMap((name) => text(name) ?? []);
  if (verb === undefined || outcome === undefined) {
    const what = ABOUT.flatMap((name) => (members[name] === undefined ? [] : `${name} ${members[name]}`));
    return `${msg}${what.length === 0 ? '' : ` (${what.join(', ')})`}${because}`;
  }
  const of = about.length === 0 ? '' : ` ${about[0]}`;
  const error = text('error') === undefined ? '' : ` (${text('error')})`;
  const took = text('ms') === undefined ? '' : ` in ${text('ms')} ms`;
  return `${verb}${of}: ${outcome}${error}${took}${msg === 'verb' ? '' : `; ${msg}`}${because}`;
}

/** What a line may be about, the closest first. */
const ABOUT = [
  'exportId',
  'backupId',
  'snapshotId',
  'checkpoint',
  'jobId',
  'vmId',
  'path',
  'socket',
  'procedure',
];

/** A reason is a text, or an error. */
function wordsOf(reason: unknown): string[] {
  if (reason === undefined || reason === null) return [];
  const { message } = reason as { message?: unknown };
  return [`: ${message === undefined ? String(reason) : String(message)}`];
}

/** A value with a line break in it is preceded by its length, as a 64-bit number with the least byte first. */
function encoded(name: string, value: string): Buffer {
  let bytes = Buffer.from(value);
  if (bytes.length > MAX_VALUE) bytes = Buffer.concat([bytes.subarray(0, MAX_VALUE), Buffer.from('… (cut)')]);
  if (!bytes.includes(0x0a)) return Buffer.concat([Buffer.from(`${name}=`), bytes, Buffer.from('\n')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.length));
  return Buffer.concat([Buffer.from(`${name}\n`), length, bytes, Buffer.from('\n')]);
}
