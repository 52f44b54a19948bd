/**
 * XDR types as values, so that a procedure's arguments and results are written down once, as a table, and their
 * TypeScript types follow from it.
 */
import { XdrError, type XdrReader, type XdrWriter } from './xdr.js';

/** How one type goes onto the wire and comes off it. */
export interface XdrType<T> {
  encode(writer: XdrWriter, value: T): void;
  decode(reader: XdrReader): T;
}

/** The TypeScript type that an `XdrType` carries. */
export type ValueOf<X> = X extends XdrType<infer T> ? T : never;

/** No value at all: a procedure without arguments or without a result. */
export const nothing: XdrType<void> = { encode: () => {}, decode: () => {} };

/** `int`, and XDR's `enum`. */
export const int: XdrType<number> = {
  encode: (writer, value) => writer.int(value),
  decode: (reader) => reader.int(),
};

/** `unsigned int`; also `unsigned char` and `unsigned short`, which take four bytes on the wire as well. */
export const uint: XdrType<number> = {
  encode: (writer, value) => writer.uint(value),
  decode: (reader) => reader.uint(),
};

/** libvirt's `int` that means true or false. */
export const bool: XdrType<boolean> = {
  encode: (writer, value) => writer.bool(value),
  decode: (reader) => reader.bool(),
};

/** `unsigned hyper`, exact: for counters that pass 2^53, such as nanoseconds of CPU time (104 days). */
export const uhyper: XdrType<bigint> = {
  encode: (writer, value) => writer.uhyper(value),
  decode: (reader) => reader.uhyper(),
};

/** `unsigned hyper` as a number: for sizes in bytes, milliseconds and the like. A value above 2^53-1 is refused. */
export const size: XdrType<number> = {
  encode: (writer, value) => writer.uhyper(value),
  decode: (reader) => {
    const value = reader.uhyper();
    if (value > BigInt(Number.MAX_SAFE_INTEGER))
      throw new XdrError(`${value} is above 2^53-1`, reader.offset - 8);
    return Number(value);
  },
};

/** `string<maxBytes>`. */
export function string(maxBytes: number): XdrType<string> {
  return {
    encode: (writer, value) => writer.string(value, maxBytes),
    decode: (reader) => reader.string(maxBytes),
  };
}

/** `T *`: a value or none. None is `null`, never `undefined`, so that a forgotten member does not pass for it. */
export function optional<T>(type: XdrType<T>): XdrType<T | null> {
  return {
    encode: (writer, value) => {
      writer.bool(value !== null);
      if (value !== null) type.encode(writer, value);
    },
    decode: (reader) => (reader.present() ? type.decode(reader) : null),
  };
}

/** `T name<max>`. */
export function array<T>(type: XdrType<T>, max: number): XdrType<readonly T[]> {
  return {
    encode: (writer, values) => {
      writer.arrayLength(values.length, max);
      for (const value of values) type.encode(writer, value);
    },
    decode: (reader) => {
      // The count is not believed for an allocation: the elements have to be there one by one.
      const length = reader.arrayLength(max);
      const values: T[] = [];
      for (let i = 0; i < length; i++) values.push(type.decode(reader));
      return values;
    },
  };
}

type Members = Record<string, XdrType<never> | XdrType<unknown>>;
type StructOf<M> = { -readonly [K in keyof M]: ValueOf<M[K]> };

/** `struct`: the members in the order in which they are written here (JavaScript keeps it for names). */
export function struct<M extends { [K in keyof M]: XdrType<ValueOf<M[K]>> }>(
  members: M,
): XdrType<StructOf<M>> {
  const entries = Object.entries(members as Members) as [keyof M & string, XdrType<unknown>][];
  return {
    encode: (writer, value) => {
      for (const [name, type] of entries) type.encode(writer, value[name]);
    },
    decode: (reader) => {
      const value: Record<string, unknown> = {};
      for (const [name, type] of entries) value[name] = type.decode(reader);
      return value as StructOf<M>;
    },
  };
}

/** The same bytes under another TypeScript type: a UUID as text, a state as a union. */
export function mapped<Wire, T>(
  type: XdrType<Wire>,
  toWire: (value: T) => Wire,
  fromWire: (wire: Wire) => T,
): XdrType<T> {
  return {
    encode: (writer, value) => type.encode(writer, toWire(value)),
    decode: (reader) => fromWire(type.decode(reader)),
  };
}
