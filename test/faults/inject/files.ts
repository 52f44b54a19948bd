/** Deeds on files: those of node:fs/promises that change something. The agent uses no others. */
import fs from 'node:fs';
import { plain, point } from './point.js';

type Deed = (...args: unknown[]) => Promise<unknown>;

/** Before it, where it can be cut short in the middle of it, and after it, before the agent knows. */
function wrap(
  target: object,
  key: string,
  nameOf: (args: unknown[], self: unknown) => string,
  half?: (args: unknown[], self: unknown) => void,
): void {
  const members = target as Record<string, Deed>;
  const deed = members[key];
  if (deed === undefined) throw new Error(`this Node has no ${key}`);
  members[key] = async function (this: unknown, ...args: unknown[]) {
    const name = nameOf(args, this);
    point(`before ${name}`);
    if (half !== undefined) point(`amid ${name}`, () => half(args, this));
    const result = await deed.apply(this, args);
    point(`after ${name}`);
    return result;
  };
}

const byPath =
  (key: string) =>
  ([path]: unknown[]) =>
    `${key} ${plain(String(path))}`;

const byTwo =
  (key: string) =>
  ([from, to]: unknown[]) =>
    `${key} ${plain(String(from))} ${plain(String(to))}`;

function halfOf(data: unknown): Buffer {
  const bytes = Buffer.from(data as string | Uint8Array);
  return bytes.subarray(0, bytes.length >> 1);
}

/** A directory loses what comes first in it. */
function removeHalf([path]: unknown[]): void {
  const directory = String(path);
  if (!fs.lstatSync(directory, { throwIfNoEntry: false })?.isDirectory()) return;
  const names = fs.readdirSync(directory).sort();
  for (const name of names.slice(0, Math.ceil(names.length / 2))) {
    fs.rmSync(`${directory}/${name}`, { recursive: true });
  }
}

const { O_WRONLY, O_RDWR, O_CREAT } = fs.constants;
function isForWriting(flags: unknown): boolean {
  if (typeof flags === 'number') return (flags & (O_WRONLY | O_RDWR | O_CREAT)) !== 0;
  return /[wa+]/.test(String(flags ?? 'r'));
}

/** What a handle that may write was opened by. */
const opened = new WeakMap<object, string>();

/** A sync is no point: what the daemon has written is the kernel's, whether it is killed or not. */
function wrapHandles(prototype: Record<string, Deed>): void {
  const ofHandle = (key: string) => (_args: unknown[], self: unknown) =>
    `${key} ${opened.get(self as object)}`;
  for (const key of ['writeFile', 'truncate']) {
    const deed = prototype[key];
    const half =
      key === 'writeFile'
        ? ([data]: unknown[], self: unknown) => void fs.writeSync((self as { fd: number }).fd, halfOf(data))
        : undefined;
    wrap(prototype, key, ofHandle(key), half);
    const wrapped = prototype[key];
    prototype[key] = function (this: object, ...args) {
      return (opened.has(this) ? wrapped : deed)?.apply(this, args) ?? Promise.resolve();
    };
  }
}

/** To be followed by `syncBuiltinESMExports`. */
export async function wrapFiles(): Promise<void> {
  const { promises } = fs;
  const handle = await promises.open('/dev/null', 'r');
  wrapHandles(Object.getPrototypeOf(handle));
  await handle.close();
  for (const key of ['unlink', 'rmdir', 'mkdir', 'chmod', 'chown']) wrap(promises, key, byPath(key));
  for (const key of ['rename', 'link', 'symlink']) wrap(promises, key, byTwo(key));
  wrap(promises, 'rm', byPath('rm'), removeHalf);
  wrap(promises, 'writeFile', byPath('write'), ([path, data]) =>
    fs.writeFileSync(String(path), halfOf(data)),
  );
  const { open } = promises;
  promises.open = async (path, flags, mode) => {
    if (!isForWriting(flags)) return open(path, flags, mode);
    const name = plain(String(path));
    point(`before open ${name}`);
    const writer = await open(path, flags, mode);
    opened.set(writer, name);
    point(`after open ${name}`);
    return writer;
  };
}
