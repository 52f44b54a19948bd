/**
 * What a record must look like to be believed: beside the type of each kind stands its shape, of which the compiler sees
 * to it that no member is forgotten. A record that was cut short, edited or hit by a bad block would otherwise lead later
 * steps (a removal, a signal) to where they never should go.
 *
 * Not JSON Schema: the types would stand twice, and nothing would hold the two together. Members that a shape does not
 * know are let through, since a program of the same record version may have written them.
 */
import { type Cause, type ErrorName, errorRegistry } from '../errors.js';
import type { LeaseRecord } from './lease.js';

/** The first fault of a value in words, at the place `at` (`disks/0/target`); undefined without one. */
export interface Shape<T> {
  (value: unknown, at: string): string | undefined;
  /** Never there: it ties the shape to its type. */
  readonly of?: T;
}

const wrong = (at: string, what: string): string => `${at === '' ? 'it' : at} ${what}`;

function test<T>(holds: (value: unknown) => boolean, what: string): Shape<T> {
  return (value, at) => (holds(value) ? undefined : wrong(at, what));
}

/** Text of a form; `what` says what it is not: `is not an id`. */
export function matching(pattern: RegExp, what: string): Shape<string> {
  return test((value) => typeof value === 'string' && pattern.test(value), what);
}

export const text: Shape<string> = test((value) => typeof value === 'string', 'is not text');
export const flag: Shape<boolean> = test((value) => typeof value === 'boolean', 'is not true or false');
/** From 0 to 2^53-1. */
export const count: Shape<number> = test(
  (value) => Number.isSafeInteger(value) && Number(value) >= 0,
  'is not a whole number from 0 on',
);
const upTo = (most: number): Shape<number> =>
  test(
    (value) => Number.isSafeInteger(value) && Number(value) >= 1 && Number(value) <= most,
    `is not a whole number from 1 to ${most}`,
  );
/** An id that a caller may pick (`rpc-schema/types/id.json`), safe as a file name. */
export const callersId = matching(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/, 'is not an id');
export const uuid = matching(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, 'is not a UUID');
/** A VM, as records name it. */
export const vm = object<{ uuid: string; name: string }>({ uuid, name: text });
/** Why something is not as it should be. */
export const cause = exactly<Cause>({
  name: oneOf(...(Object.keys(errorRegistry) as ErrorName[])),
  message: text,
});
/** What became of a checkpoint. */
export const endedCheckpoint = exactly<{ id: string; state: 'kept' | 'deleted' }>({
  id: callersId,
  state: oneOf('kept', 'deleted'),
});
/** Milliseconds of a clock, with fractions. */
const moment: Shape<number> = test(
  (value) => typeof value === 'number' && Number.isFinite(value) && value >= 0,
  'is not a number from 0 on',
);
/** ISO 8601 UTC, a time that there is. */
export const time = test<string>(
  (value) => typeof value === 'string' && isTime(value),
  'is not a time in UTC (ISO 8601)',
);
/** Absolute, and nowhere on its way up again. */
export const path = test<string>(
  (value) => typeof value === 'string' && value.startsWith('/') && !/(^|\/)\.\.(\/|$)|\0/.test(value),
  'is not an absolute path',
);

/** A year, as the API has it. */
const LONGEST_LEASE = 31_536_000;

/** How long it lives unless it is renewed; null: until it is ended. */
export const lease = nullable(
  exactly<LeaseRecord>({ seconds: upTo(LONGEST_LEASE), bootId: uuid, endsAt: moment, expires: time }),
);

function isTime(value: string): boolean {
  return /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/.test(value) && !Number.isNaN(Date.parse(value));
}

export function oneOf<const V extends string | number>(...values: readonly V[]): Shape<V> {
  return test((value) => values.includes(value as V), `is none of ${values.join(', ')}`);
}

export function nullable<T>(shape: Shape<T>): Shape<T | null> {
  return (value, at) => (value === null ? undefined : shape(value, at));
}

export function optional<T>(shape: Shape<T>): Shape<T | undefined> {
  return (value, at) => (value === undefined ? undefined : shape(value, at));
}

export function listOf<T>(shape: Shape<T>): Shape<T[]> {
  return (value, at) => {
    if (!Array.isArray(value)) return wrong(at, 'is not a list');
    for (const [i, item] of value.entries()) {
      const fault = shape(item, within(at, String(i)));
      if (fault !== undefined) return fault;
    }
    return undefined;
  };
}

/** A shape for each member; only for one that may be absent does it allow that. */
type ShapesOf<T> = {
  readonly [K in keyof T]-?: object extends Pick<T, K> ? Shape<T[K] | undefined> : Shape<T[K]>;
};

/** An object with these members, each of its shape. */
export function object<T extends object>(members: ShapesOf<T>): Shape<T> {
  const entries = Object.entries(members) as [string, Shape<unknown>][];
  return (value, at) => {
    if (!isObject(value)) return wrong(at, 'is not an object');
    for (const [name, shape] of entries) {
      const member = Object.hasOwn(value, name) ? value[name] : undefined;
      const fault = shape(member, within(at, name));
      if (fault !== undefined) return fault;
    }
    return undefined;
  };
}

/** As `object`, and nothing else in it: for what goes out to callers as it stands. */
export function exactly<T extends object>(members: ShapesOf<T>): Shape<T> {
  const shape = object<T>(members);
  return (value, at) => {
    const fault = shape(value, at);
    if (fault !== undefined) return fault;
    const stranger = Object.keys(value as object).find((name) => !Object.hasOwn(members, name));
    return stranger === undefined
      ? undefined
      : wrong(at, `has a member ${JSON.stringify(stranger.slice(0, 64))}`);
  };
}

/** One of several objects, told apart by a member that they all have. */
export function by<K extends string, T extends { [M in K]: string }>(
  member: K,
  kinds: { readonly [N in T[K]]: Shape<Extract<T, { [M in K]: N }>> },
): Shape<T> {
  return (value, at) => {
    if (!isObject(value)) return wrong(at, 'is not an object');
    const kind = value[member];
    if (typeof kind !== 'string' || !Object.hasOwn(kinds, kind))
      return wrong(within(at, member), `is none of ${Object.keys(kinds).join(', ')}`);
    return kinds[kind as T[K]](value, at);
  };
}

/** As `by`, of those that call it `kind`. */
export function byKind<T extends { kind: string }>(
  kinds: { readonly [N in T['kind']]: Shape<Extract<T, { kind: N }>> },
): Shape<T> {
  return by<'kind', T>('kind', kinds);
}

/** An object that is compared or handed on as it is, and of which these members are used. */
export function objectWith<T extends object, K extends keyof T>(members: ShapesOf<Pick<T, K>>): Shape<T> {
  return object(members) as Shape<T>;
}

/** A shape, and a rule over several of its members, which says the fault in words. */
export function withRule<T>(shape: Shape<T>, rule: (value: T) => string | undefined): Shape<T> {
  return (value, at) => shape(value, at) ?? rule(value as T);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function within(at: string, name: string): string {
  return at === '' ? name : `${at}/${name}`;
}
