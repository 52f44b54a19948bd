/** Damage to bytes on their way, for all protocols alike. */
import type { SeededRandom } from '../golden/random.js';

/** Numbers at the borders of what a field of 32 bits may mean. */
export const borderNumbers: readonly [number, ...number[]] = [
  0, 1, 2, 3, 4, 7, 8, 27, 28, 29, 255, 256, 65_535, 65_536, 0x0100_0000, 0x0200_0000, 0x7fff_ffff, 0x8000_0000,
  0x8000_0001, 0xffff_fffe, 0xffff_ffff,
]; // biome-ignore format: a table

/** The same bytes with one to three things wrong: bits, words, bytes too few, too many or in another place. */
export function damaged(random: SeededRandom, right: Buffer): Buffer {
  let bytes = Buffer.from(right);
  for (let wrong = 1 + random.below(3); wrong > 0; wrong--) bytes = damagedOnce(random, bytes);
  return bytes;
}

function damagedOnce(random: SeededRandom, bytes: Buffer<ArrayBuffer>): Buffer<ArrayBuffer> {
  if (bytes.length === 0) return Buffer.from(random.bytes(1 + random.below(8)));
  const at = random.below(bytes.length);
  const end = Math.min(bytes.length, at + random.pick([1, 2, 4, 4, 8, 100]));
  switch (random.below(7)) {
    case 0:
      bytes.writeUInt8((bytes[at] ?? 0) ^ (1 << random.below(8)), at);
      return bytes;
    case 1:
    case 2: {
      // Most fields are words that lie on a multiple of four.
      const word = random.below(Math.max(1, Math.floor(bytes.length / 4))) * 4;
      if (word + 4 <= bytes.length) bytes.writeUInt32BE(random.pick(borderNumbers), word);
      return bytes;
    }
    case 3:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(end)]);
    case 4:
      return Buffer.concat([
        bytes.subarray(0, at),
        random.bytes(random.pick([1, 4, 8, 64])),
        bytes.subarray(at),
      ]);
    case 5:
      return Buffer.concat([bytes.subarray(0, end), bytes.subarray(at, end), bytes.subarray(end)]);
    default:
      return Buffer.from(bytes.subarray(0, at));
  }
}

/** The same bytes in pieces, which arrive one after another. */
export function inPieces(random: SeededRandom, bytes: Buffer): Buffer[] {
  if (random.chance(0.6)) return [bytes];
  const places = Array.from({ length: 1 + random.below(6) }, () => random.below(bytes.length + 1));
  const borders = [0, ...places.sort((a, b) => a - b), bytes.length];
  return borders.slice(1).map((end, i) => bytes.subarray(borders[i], end));
}
