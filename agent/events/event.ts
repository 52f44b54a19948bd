import type { HostEvent } from '../api/generated.js';

/** One kind at a time, so that each keeps its own members. */
type WithoutPlace<E> = E extends unknown ? Omit<E, 'seq' | 'time'> : never;

/** What has happened, before it has its number and time. */
export type NewEvent = WithoutPlace<HostEvent>;

/** Whom the deeds tell what has happened, once it is on record. */
export interface EventSink {
  /** Takes no time and never fails: what becomes of it is the journal's affair. */
  emit(event: NewEvent): void;
}

/** An event as it is kept: its number, and its text in JSON. */
export interface EventLine {
  seq: number;
  text: string;
}
