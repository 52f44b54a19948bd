/** Answers for people: a list as a table, all else as `member: value`. `--json` is for programs. */
import { printable } from './printable.js';
import { table } from './table.js';

/** Rows of a list within an answer; all are in `--json`. */
const INNER_ROWS = 10;

/** @param columns the members of a row that a table shows; absent: those that are plain values */
export function show(result: unknown, columns?: readonly string[]): string {
  if (!isObject(result)) return `${compact(result)}\n`;
  const lists = Object.entries(result).filter(([, value]) => isRows(value));
  const rest = Object.fromEntries(Object.entries(result).filter(([, value]) => !isRows(value)));
  const [first] = lists;
  if (columns !== undefined && first === undefined) return 'None.\n';
  return [
    ...(Object.keys(rest).length > 0 && columns === undefined ? [members(rest, '')] : []),
    ...lists.map(([name, rows]) => {
      const heading = columns === undefined ? `${name}:\n` : '';
      return heading + rowsTable(rows as Row[], columns, '');
    }),
  ].join('');
}

type Row = Record<string, unknown>;

function members(value: Row, indent: string): string {
  const width = Math.max(...Object.keys(value).map((name) => name.length));
  return Object.entries(value)
    .map(([name, member]) => {
      const label = `${indent}${printable(name)}:`.padEnd(indent.length + width + 1);
      if (isObject(member) && Object.keys(member).length > 0) {
        return `${label.trimEnd()}\n${members(member, `${indent}  `)}`;
      }
      if (isRows(member)) {
        const rows = rowsTable(member.slice(0, INNER_ROWS), undefined, `${indent}  `);
        const more = member.length - INNER_ROWS;
        return `${label.trimEnd()}\n${rows}${more > 0 ? `${indent}  … and ${more} more (--json shows all)\n` : ''}`;
      }
      if (typeof member === 'string' && member.includes('\n')) {
        return `${label.trimEnd()}\n${printable(member.trimEnd()).replace(/^/gm, `${indent}  `)}\n`;
      }
      return `${label} ${compact(member)}\n`;
    })
    .join('');
}

function rowsTable(rows: readonly Row[], columns: readonly string[] | undefined, indent: string): string {
  const shown = columns ?? plainColumns(rows);
  return table(
    shown,
    rows.map((row) => shown.map((path) => compact(valueAt(row, path.split('.'))))),
    indent,
  );
}

/** Members that are plain values in some row, in the order of their first. */
function plainColumns(rows: readonly Row[]): string[] {
  const names = new Set<string>();
  for (const row of rows) {
    for (const [name, value] of Object.entries(row))
      if (typeof value !== 'object' || value === null) names.add(name);
  }
  return [...names];
}

/** `disks.disk` is that member of each of the list `disks`. */
function valueAt(value: unknown, path: readonly string[]): unknown {
  const [name, ...rest] = path;
  if (name === undefined) return value;
  if (Array.isArray(value)) return value.map((item) => valueAt(item, path));
  return isObject(value) && Object.hasOwn(value, name) ? valueAt(value[name], rest) : null;
}

/** On one line: `-` for null, `a b` for a list, `member=value,…` for an object, as it is typed. */
export function compact(value: unknown): string {
  if (value === null || value === undefined) return '-';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (Array.isArray(value)) return value.length === 0 ? '-' : value.map(compact).join(' ');
  if (!isObject(value)) return printable(String(value)).replaceAll('\n', '\\n');
  const pairs = Object.entries(value).map(([name, member]) => `${name}=${compact(member)}`);
  return pairs.length === 0 ? '-' : printable(pairs.join(','));
}

function isObject(value: unknown): value is Row {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A list of objects, and not an empty one. */
function isRows(value: unknown): value is Row[] {
  return Array.isArray(value) && value.length > 0 && value.every(isObject);
}
