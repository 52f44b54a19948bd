/** What a client of a mount does with it, by NBD and, where there is one, by its file. */
import { execFile } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { promisify } from 'node:util';
import type { MountDiskResult } from '../../agent/api/generated.js';
import type { Host } from '../host/host.js';
import { differenceAt, fromOutside, readExport, Unreadable } from './disk-content.js';
import type { Stage } from './stage.js';

const CLIENT_MS = 60_000;
const run = promisify(execFile);

/** The mount shows that content, whichever way it is looked at. @throws Refused, Error */
export async function shows(stage: Stage, made: MountDiskResult, content: Buffer): Promise<void> {
  const { host } = stage.rig;
  const { exportId, path } = made;
  const look = async (how: string, read: () => Promise<Buffer>) => {
    const at = differenceAt(await stage.asClient(read), content);
    if (at !== null) throw new Error(`${exportId} ${how} differs from what it should show at byte ${at}`);
  };
  await look('over NBD', () => readExport(host, made));
  if (path !== undefined) await look('as a file', () => readMounted(host, path));
}

/** Returns when the bytes are where they are written to: in the layer, or on the disk. @throws Refused */
export async function fill(
  stage: Stage,
  { uri, path }: MountDiskResult,
  byte: number,
  offset: number,
  length: number,
): Promise<void> {
  const { host } = stage.rig;
  const by =
    path === undefined
      ? () => fillExport(host, uri, `write -P ${byte} ${offset} ${length}`)
      : () => fillMounted(host, path, Buffer.alloc(length, byte), offset);
  await stage.asClient(by);
}

async function fillExport(host: Host, uri: string, command: string): Promise<void> {
  const args = ['-f', 'raw', '-c', command, '-c', 'flush', fromOutside(host, uri)];
  await run('qemu-io', args, { timeout: CLIENT_MS }).catch(unreadable);
}

/** By way of a directory that is the same inside and outside: the mount is inside alone. */
async function readMounted(host: Host, path: string): Promise<Buffer> {
  const copy = `${host.dir}/copy`;
  await host.must('cp', [path, copy], { timeoutMs: CLIENT_MS }).catch(unreadable);
  const bytes = readFileSync(copy);
  rmSync(copy);
  return bytes;
}

async function fillMounted(host: Host, path: string, bytes: Buffer, offset: number): Promise<void> {
  const source = `${host.dir}/bytes`;
  writeFileSync(source, bytes);
  const options = ['bs=64k', `seek=${offset}`, 'oflag=seek_bytes', 'conv=notrunc,fsync'];
  await host
    .must('dd', [`if=${source}`, `of=${path}`, ...options], { timeoutMs: CLIENT_MS })
    .catch(unreadable);
}

function unreadable(cause: Error): never {
  throw new Unreadable(cause.message, { cause });
}
