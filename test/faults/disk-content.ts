/** What a disk should hold, byte for byte, and what a map of it should say. */

import { execFile } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { promisify } from 'node:util';
import type { Extent, PrepareBackupDiskResult } from '../../agent/api/generated.js';
import type { Host } from '../host/host.js';

const READ_MS = 60_000;
const run = promisify(execFile);

/** Whoever serves an export has gone, or does not answer as it should. */
export class Unreadable extends Error {
  override readonly name = 'Unreadable';
}

/** What of an export is needed to read it. */
type Readable = Pick<PrepareBackupDiskResult, 'uri' | 'credentials'>;

/** All bytes of an export, as nbdcopy reads them. */
export async function readExport(host: Host, made: Readable): Promise<Buffer> {
  const target = `${host.dir}/read`;
  await (made.credentials === undefined ? readSocket : readNetwork)(host, made, target).catch(
    (cause: Error) => {
      throw new Unreadable(cause.message, { cause });
    },
  );
  const bytes = readFileSync(target);
  rmSync(target);
  return bytes;
}

async function readSocket(host: Host, { uri }: Readable, target: string): Promise<void> {
  await run('nbdcopy', [fromOutside(host, uri), target], { timeout: READ_MS });
}

/** What an image that nobody writes to holds. @param path inside */
export async function contentOf(host: Host, path: string, format: string): Promise<Buffer> {
  const target = `${host.dir}/raw`;
  await host.must('qemu-img', ['convert', '-f', format, '-O', 'raw', path, target]);
  const bytes = readFileSync(target);
  rmSync(target);
  return bytes;
}

/** Where an export is from outside the host: a UNIX socket is where its file is. */
export function fromOutside(host: Host, uri: string): string {
  const [base, socket = ''] = uri.split('?socket=');
  return `${base}?socket=${host.path(decodeURIComponent(socket))}`;
}

/** From inside: the host's network is its own. */
async function readNetwork(host: Host, { uri, credentials }: Readable, target: string): Promise<void> {
  const keys = `${host.dir}/keys.psk`;
  writeFileSync(keys, `${credentials?.identity}:${credentials?.key}\n`, { mode: 0o600 });
  await host.must('nbdcopy', [`${uri}?tls-psk-file=${keys}`, target], { timeoutMs: READ_MS });
}

/**
 * Holds an export with an inline map against what it should be.
 * @param since what the disk was where the map counts from; null: the map must be a full one
 * @throws with what is wrong
 */
export async function verifyExport(
  host: Host,
  made: PrepareBackupDiskResult,
  content: Buffer,
  since: Buffer | null,
): Promise<void> {
  const { exportId, cbt } = made;
  const bytes = await readExport(host, made);
  const at = differenceAt(bytes, content);
  if (at !== null) throw new Error(`${exportId} differs from the disk at byte ${at}`);
  const mode = since === null ? 'full' : 'incremental';
  if (cbt.mode !== mode)
    throw new Error(`the map of ${exportId} is ${cbt.mode}: ${JSON.stringify(cbt.reason)}`);
  const wrong = whatIsWrong(cbt.extents, content, since);
  if (wrong !== null) throw new Error(`the map of ${exportId} ${wrong}`);
}

/** What a map lacks, or says wrongly; null where it is right. */
function whatIsWrong(extents: readonly Extent[], content: Buffer, since: Buffer | null): string | null {
  let end = 0;
  for (const { start, length, dirty, zero } of extents) {
    if (start !== end) return `has a gap at ${end}`;
    end += length;
    const now = content.subarray(start, end);
    if (zero && now.some((byte) => byte !== 0)) return `calls zero what is not, in ${start} to ${end}`;
    const unchanged = since === null ? zero : since.subarray(start, end).equals(now);
    if (!dirty && !unchanged) return `lacks a change in ${start} to ${end}`;
  }
  return end === content.length ? null : `ends at ${end} of ${content.length}`;
}

/** The first byte that is another; null where they are the same. */
export function differenceAt(one: Buffer, other: Buffer): number | null {
  if (one.equals(other)) return null;
  const common = Math.min(one.length, other.length);
  for (let at = 0; at < common; at++) if (one[at] !== other[at]) return at;
  return common;
}
