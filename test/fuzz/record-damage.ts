/** What may have become of a record's file: by a crash, a bad block, an editor, a restore from elsewhere, or by intent. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { SeededRandom } from '../golden/random.js';
import { damaged } from './bytes.js';
import { toJson } from './json-text.js';
import { spoiled } from './json-values.js';
import type { Sample } from './record-samples.js';

/** What a record's file has become, and what the daemon must make of it. */
export interface Damage {
  readonly what: string;
  /** `whole`: it must be read. `any`: it may be, if it still is what it should be. `newer`: nothing may start over it. */
  readonly must: 'whole' | 'any' | 'newer';
}

/** Values that would lead a careless program elsewhere. */
const leadingElsewhere: readonly [unknown, ...unknown[]] = [
  '..', '../../etc', '../../../outside', '/', '/etc', '/etc/passwd', '/etc/../etc', '', '.', '-rf', '*', '\0', 'a/b', 'a\nb',
  '__proto__', 'constructor', null, true, [], {}, [null], { kind: 'image' }, 0, -1, 1.5, 2 ** 53, 1e300, 1, 'ended',
  'ready', 'x'.repeat(100_000), '2026-11-22T15:00:00.000Z', 'yesterday', '99999-01-01T00:00:00Z',
]; // biome-ignore format: a table

/** Puts the record's file under `state`, damaged in one way. */
export function writeDamaged(random: SeededRandom, state: string, outside: string, sample: Sample): Damage {
  const { folder, id, record } = sample;
  const dir = join(state, folder);
  const file = join(dir, `${id}.json`);
  const text = `${JSON.stringify(record, null, 2)}\n`;
  const bytes = Buffer.from(text);
  const write = (content: string | Buffer, what: string, to = file): Damage => {
    writeFileSync(to, content, { mode: 0o600 });
    return { what, must: isNewer(content) ? 'newer' : 'any' };
  };
  const dice = random.below(100);
  if (dice < 15) return { ...write(text, 'whole'), must: 'whole' };
  if (dice < 25) return write(bytes.subarray(0, random.below(bytes.length)), 'cut');
  if (dice < 35) return write(damaged(random, bytes), 'damaged bytes');
  if (dice < 50) return write(toJson(spoiled(random, record)), 'a spoiled member');
  if (dice < 80) {
    const value = random.chance(0.1) ? outside : random.pick(leadingElsewhere);
    const { changed, at } = withMember(random, record, value);
    return write(toJson(changed), `${at} = ${JSON.stringify(value)?.slice(0, 60)}`);
  }
  if (dice < 82) return write(toJson({ ...record, version: 2 + random.below(100) }), 'a newer version');
  if (dice < 86) {
    const version = random.pick([0, -1, 1.5, '1', null, 1e300, true]);
    const kind = random.pick(['export', 'backup', 'note', null, 1]);
    return write(toJson({ ...record, version, kind }), `version ${version} of ${kind}`);
  }
  if (dice < 91) {
    const name = random.pick([
      'other',
      '',
      '.',
      '..',
      ' ',
      '-',
      '__proto__',
      'é',
      'a\nb',
      'x'.repeat(245),
      'a.json',
    ]);
    return write(text, `under the name ${JSON.stringify(name.slice(0, 20))}`, join(dir, `${name}.json`));
  }
  return notAFile(random, dir, file, outside, text);
}

/** Whether a program of version 1 must take it for the record of a newer one, whatever else is wrong with it. */
function isNewer(content: string | Buffer): boolean {
  try {
    const { version } = JSON.parse(content.toString());
    return Number.isSafeInteger(version) && version > 1;
  } catch {
    return false;
  }
}

function notAFile(random: SeededRandom, dir: string, file: string, outside: string, text: string): Damage {
  switch (random.below(8)) {
    case 0:
      mkdirSync(join(file, 'below'), { recursive: true });
      return { what: 'a directory', must: 'any' };
    case 1:
      symlinkSync(join(outside, 'precious'), file);
      return { what: 'a link', must: 'any' };
    case 2:
      symlinkSync(random.pick(['nowhere', '.', '/dev/zero', file]), file);
      return { what: 'a link that leads nowhere good', must: 'any' };
    case 3:
      execFileSync('mkfifo', [file]);
      return { what: 'a pipe', must: 'any' };
    case 4:
      writeFileSync(file, text);
      truncateSync(file, 2 ** 30);
      return { what: 'a gigabyte', must: 'any' };
    case 5:
      writeFileSync(join(dir, `${'x'.repeat(20)}.0123abcd.tmp`), text.slice(0, 20));
      return { what: 'what a write left', must: 'any' };
    case 6:
      mkdirSync(join(dir, 'directory.tmp'), { recursive: true });
      return { what: 'a directory that ends in .tmp', must: 'any' };
    default:
      writeFileSync(
        Buffer.concat([Buffer.from(`${dir}/`), Buffer.from([0xff, 0xfe]), Buffer.from('.json')]),
        text,
      );
      return { what: 'a name that is not UTF-8', must: 'any' };
  }
}

/** The record with one member, at any depth, set to a value. */
function withMember(random: SeededRandom, record: object, value: unknown): { changed: unknown; at: string } {
  const changed = structuredClone(record) as Record<string, unknown>;
  const path: string[] = [];
  let holder = changed;
  for (;;) {
    const names = Object.keys(holder);
    const name = names[random.below(names.length)];
    if (name === undefined) break;
    path.push(name);
    const member = holder[name];
    if (
      typeof member === 'object' &&
      member !== null &&
      Object.keys(member).length > 0 &&
      random.chance(0.7)
    ) {
      holder = member as Record<string, unknown>;
      continue;
    }
    holder[name] = value;
    break;
  }
  return { changed, at: path.join('/') };
}
