/**
 * Lets calls onto the wire a few at a time, and no domain's calls take every place.
 *
 * libvirtd works on `max_client_requests` (5) calls of a connection and then stops reading from it, keepalive
 * included (src/rpc/virnetserverclient.c): five calls that hang on hung QEMUs cost the connection its keepalive, 30 s,
 * and every other call with it. So calls wait here, where they can still be told apart, and domains take turns.
 */
import type { Deadline } from './deadline.js';

/** A call on its way in: exactly one of the two is called. */
export interface Candidate {
  readonly deadline: Deadline;
  /** Its turn. Must see to it that `leave` is called with the same key once the place is free again. */
  start(): void;
  /** It will not have a turn. */
  reject(error: Error): void;
}

interface Lane {
  readonly key: string;
  readonly limit: number;
  readonly waiting: Set<Candidate>;
  inside: number;
}

export class CallGate {
  readonly #perKey: number;
  #capacity = 0;
  #inside = 0;
  /** Lanes with somebody inside or waiting. */
  readonly #lanes = new Map<string, Lane>();
  /** Lanes that have somebody waiting and a place of their own left, in the order of their turns. */
  readonly #turns = new Set<Lane>();

  /** @param perKey how many calls of one key may be inside at once. Calls of the key '' are not limited. */
  constructor(perKey: number) {
    this.#perKey = perKey;
  }

  /** Calls that wait. */
  get waiting(): number {
    let sum = 0;
    for (const lane of this.#lanes.values()) sum += lane.waiting.size;
    return sum;
  }

  /** How many calls may be inside at once; those that are inside already stay. */
  setCapacity(capacity: number): void {
    this.#capacity = capacity;
    this.#admit();
  }

  /** Starts the call at once or lets it wait, until its deadline at most. */
  enter(key: string, candidate: Candidate): void {
    const lane = this.#lane(key);
    lane.waiting.add(candidate);
    candidate.deadline.onEnd(false, (error) => {
      lane.waiting.delete(candidate);
      this.#tidy(lane);
      candidate.reject(error);
    });
    this.#queue(lane);
    this.#admit();
  }

  /** A place is free. */
  leave(key: string): void {
    const lane = this.#lane(key);
    lane.inside--;
    this.#inside--;
    this.#queue(lane);
    this.#tidy(lane);
    this.#admit();
  }

  /** Sends away all that wait. */
  rejectWaiting(error: () => Error): void {
    for (const lane of [...this.#lanes.values()]) {
      const candidates = [...lane.waiting];
      lane.waiting.clear();
      this.#tidy(lane);
      for (const candidate of candidates) {
        candidate.deadline.clear();
        candidate.reject(error());
      }
    }
  }

  #lane(key: string): Lane {
    let lane = this.#lanes.get(key);
    if (lane === undefined) {
      const limit = key === '' ? Number.POSITIVE_INFINITY : this.#perKey;
      lane = { key, limit, waiting: new Set(), inside: 0 };
      this.#lanes.set(key, lane);
    }
    return lane;
  }

  #queue(lane: Lane): void {
    if (lane.waiting.size > 0 && lane.inside < lane.limit) this.#turns.add(lane);
  }

  #tidy(lane: Lane): void {
    if (lane.waiting.size > 0) return;
    this.#turns.delete(lane);
    if (lane.inside === 0) this.#lanes.delete(lane.key);
  }

  #admit(): void {
    while (this.#inside < this.#capacity) {
      const [lane] = this.#turns;
      const [candidate] = lane?.waiting ?? [];
      if (lane === undefined || candidate === undefined) return;
      this.#turns.delete(lane);
      lane.waiting.delete(candidate);
      lane.inside++;
      this.#inside++;
      this.#queue(lane);
      candidate.start();
    }
  }
}
