/** What goes wrong with a server's messages: in their fields, where damaged bytes would be found out at once, or in their bytes. */
import type { SeededRandom } from '../golden/random.js';
import { borderNumbers, damaged } from './bytes.js';
import {
  chunkBytes,
  EXTENDED_MAGIC,
  type SaidExtent,
  SIMPLE_MAGIC,
  STRUCTURED_MAGIC,
  type StatusChunkFields,
  type StatusRequest,
  statusPayload,
} from './nbd-server.js';

const longNumbers = (random: SeededRandom, around: bigint): bigint =>
  random.pick([
    0n,
    1n,
    511n,
    around - 1n,
    around,
    around + 1n,
    2n ** 31n,
    2n ** 32n - 1n,
    2n ** 53n,
    2n ** 63n,
    2n ** 64n - 1n,
  ]);

/** The bytes of a reply whose fields are wrong in one way; some ways are right ones that servers seldom take. */
export function wrongStatus(
  random: SeededRandom,
  chunks: readonly StatusChunkFields[],
  request: StatusRequest,
): Buffer {
  const changed = chunks.map((chunk) => ({ ...chunk }));
  const at = random.below(Math.max(1, changed.length));
  const one = changed[at];
  const bytes = (): Buffer => Buffer.concat(changed.map(chunkBytes));
  if (one === undefined || random.chance(0.2)) return damaged(random, bytes());
  switch (random.below(12)) {
    case 0:
      one.cookie = random.pick([0n, one.cookie + 1n, 2n ** 64n - 1n]);
      break;
    case 1:
      one.offset = longNumbers(random, request.offset);
      break;
    case 2:
      one.flags = random.pick([0, 1, 2, 0xffff]);
      break;
    case 3:
      one.type = random.pick([0, 1, 2, 5, 6, 7, 0x8001, 0x8002, 0xffff]);
      break;
    case 4:
      one.length = random.pick([
        0n,
        4n,
        one.length - 1n,
        one.length + 8n,
        2n ** 31n,
        2n ** 32n - 1n,
        2n ** 64n - 1n,
      ]);
      break;
    case 5:
      changed.splice(at, 0, { ...one, flags: 0 }); // the same context twice
      break;
    case 6:
      changed.splice(at, 1); // a context left out; with it perhaps the end
      break;
    case 7:
      changed.splice(at, 0, errorChunk(random, one)); // an error beside a status
      break;
    case 8:
      return Buffer.concat([bytes(), random.bytes(random.pick([1, 4, 20]))]);
    case 9:
      return simpleReply(random, one.cookie);
    default:
      rewriteExtents(random, one, request);
  }
  return bytes();
}

/** Only the extents are wrong: zero or too long, too many, too few, in numbers that do not fit. */
function rewriteExtents(random: SeededRandom, chunk: StatusChunkFields, request: StatusRequest): void {
  const wide = chunk.magic === EXTENDED_MAGIC;
  const count = random.pick([0, 1, 2, 3, 65, 1000]);
  const extents: SaidExtent[] = Array.from({ length: count }, () => ({
    length: random.chance(0.3) ? longNumbers(random, request.length) : BigInt(512 * (1 + random.below(64))),
    flags: random.chance(0.1) ? longNumbers(random, 2n ** 32n) : BigInt(random.below(4)),
  }));
  const announced = random.chance(0.8) ? count : random.pick(borderNumbers);
  const id = random.chance(0.9) ? chunk.payload.readUInt32BE(0) : random.pick(borderNumbers);
  chunk.payload = statusPayload(id, extents, wide, announced);
  if (random.chance(0.1)) chunk.payload = chunk.payload.subarray(0, random.below(chunk.payload.length + 1));
  chunk.length = BigInt(chunk.payload.length);
}

function errorChunk(random: SeededRandom, like: StatusChunkFields): StatusChunkFields {
  const message = random.pick(['', 'no', 'x'.repeat(4096), '\0', '\ud800']);
  const text = Buffer.from(message);
  const payload = Buffer.alloc(6 + text.length);
  payload.writeUInt32BE(random.pick([0, 1, 5, 22, 75, 108, 0xffff_ffff]), 0);
  payload.writeUInt16BE(random.chance(0.8) ? text.length : random.pick([0, 1, 0xffff]), 4);
  text.copy(payload, 6);
  const flags = random.pick([0, 0, 1]);
  return {
    ...like,
    type: random.pick([0x8001, 0x8002, 0xffff]),
    flags,
    payload,
    length: BigInt(payload.length),
  };
}

function simpleReply(random: SeededRandom, cookie: bigint): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt32BE(random.chance(0.8) ? SIMPLE_MAGIC : STRUCTURED_MAGIC, 0);
  bytes.writeUInt32BE(random.pick([0, 5, 22, 75, 108]), 4);
  bytes.writeBigUInt64BE(cookie, 8);
  return bytes;
}
