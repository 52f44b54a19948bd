/** A client that has not shown who it is yet. */
export interface Stranger {
  readonly address: string;
  /** Ends its connection. */
  cut(reason: string): void;
}

/**
 * The clients that have not shown who they are, in the order of their arrival. There is a place for so many; one more, and
 * the oldest of the address that has most of them goes: who opens a thousand connections and says nothing takes places
 * from itself, and one that is quick with its handshake gets through in any case.
 */
export class HalfOpen {
  readonly #places: number;
  readonly #byAddress = new Map<string, Set<Stranger>>();
  #count = 0;

  constructor(places: number) {
    this.#places = places;
  }

  enter(stranger: Stranger): void {
    const of = this.#byAddress.get(stranger.address) ?? new Set();
    this.#byAddress.set(stranger.address, of.add(stranger));
    if (++this.#count <= this.#places) return;
    const [most = of] = [...this.#byAddress.values()].sort((a, b) => b.size - a.size);
    const [oldest] = most;
    if (oldest === undefined) return;
    this.leave(oldest);
    oldest.cut(`${this.#places} clients are in the middle of their handshakes, which is the limit`);
  }

  /** Idempotent. */
  leave(stranger: Stranger): void {
    const of = this.#byAddress.get(stranger.address);
    if (of === undefined || !of.delete(stranger)) return;
    this.#count--;
    if (of.size === 0) this.#byAddress.delete(stranger.address);
  }
}
