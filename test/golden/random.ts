import { createCipheriv, createHash } from 'node:crypto';

/**
 * Random choices that a seed alone decides, so that a failure can be made again. The generator is "mulberry32":
 * 32 bits of state, good enough for test plans, and the same on every machine.
 */
export class SeededRandom {
  readonly #seed: string;
  #state: number;

  /** @param parts what decides the sequence, e.g. a seed, a round and a disk */
  constructor(...parts: (string | number)[]) {
    this.#seed = parts.join('/');
    this.#state = createHash('sha256').update(this.#seed).digest().readUInt32LE(0);
  }

  /** An integer from 0 up to, not including, `limit`. */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit);
  }

  chance(probability: number): boolean {
    return this.below(1_000_000) < probability * 1_000_000;
  }

  pick<T>(choices: readonly [T, ...T[]]): T {
    return choices[this.below(choices.length)] ?? choices[0];
  }

  /** Bytes without zero blocks among them; each call gives others. */
  bytes(length: number): Buffer {
    const key = createHash('sha256')
      .update(`${this.#seed}/${this.below(2 ** 32)}`)
      .digest();
    const cipher = createCipheriv('aes-128-ctr', key.subarray(0, 16), key.subarray(16));
    return cipher.update(Buffer.alloc(length));
  }
}
