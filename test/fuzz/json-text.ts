/** JSON as a peer may write it, which is more than `JSON.stringify` does: 1e400, a name twice, any number as it stands. */

/** A piece of JSON that is put into the text as it is. */
export class RawJson {
  constructor(readonly text: string) {}
}

/** An object's members in order, names more than once included. */
export class Members {
  constructor(readonly entries: readonly (readonly [name: string, value: unknown])[]) {}
}

export function toJson(value: unknown): string {
  if (value instanceof RawJson) return value.text;
  if (value instanceof Members) return braced(value.entries);
  if (Array.isArray(value)) return `[${value.map(toJson).join(',')}]`;
  if (typeof value === 'object' && value !== null) return braced(Object.entries(value));
  return JSON.stringify(value) ?? 'null';
}

function braced(entries: readonly (readonly [string, unknown])[]): string {
  return `{${entries.map(([name, value]) => `${JSON.stringify(name)}:${toJson(value)}`).join(',')}}`;
}
