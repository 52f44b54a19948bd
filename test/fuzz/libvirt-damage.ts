/** What goes wrong with a libvirtd's messages. */
import type { SeededRandom } from '../golden/random.js';
import { message, type Received, str, words } from '../libvirt/fake-libvirtd.js';
import { borderNumbers, damaged } from './bytes.js';

/** REMOTE_PROGRAM and KEEPALIVE_PROGRAM. */
const programs: readonly [number, ...number[]] = [0x20008086, 0x6b656570, 0x20008087, 0, 0xffff_ffff];

/** A reply, right but for the damage: in its header, its payload or its bytes. */
export function wrongReply(random: SeededRandom, call: Received, payload: Buffer): Buffer {
  const right = [0x20008086, 1, call.procedure, 1, call.serial, 0];
  switch (random.below(10)) {
    case 0: {
      const header = right.map((word, i) => (i === 0 && random.chance(0.5) ? random.pick(programs) : word));
      header[random.below(6)] = random.chance(0.5) ? random.below(7) : random.pick(borderNumbers);
      return message(header, payload);
    }
    case 1:
      return message([...right.slice(0, 5), 1], wrongError(random));
    case 2:
      return damaged(random, message(right, payload));
    case 3: {
      const bytes = message(right, payload);
      bytes.writeUInt32BE(random.pick([...borderNumbers, bytes.length - 1, bytes.length + 4]), 0);
      return bytes;
    }
    case 4:
      return Buffer.concat([message(right, payload), message(right, payload)]);
    case 5:
      return Buffer.concat([strangeMessage(random), message(right, payload)]);
    default:
      // The most of it: a whole frame whose content is not what it should be.
      return message(right, damaged(random, payload));
  }
}

/** A remote_error with something wrong, now and then nothing. */
function wrongError(random: SeededRandom): Buffer {
  const right = Buffer.concat([
    words(random.pick([42, 55, 68, 0, -1]), 10, 1),
    str(random.pick(['no', '', '\0', '\ud800', 'x'.repeat(5000)])),
    words(2, 0, 0, 0, 0, -1, -1, 0),
  ]);
  return random.chance(0.3) ? right : damaged(random, right);
}

/** A message that nobody asked for. */
export function strangeMessage(random: SeededRandom): Buffer {
  const payload = random.chance(0.5) ? Buffer.alloc(0) : random.bytes(random.pick([4, 8, 400]));
  const header = [random.pick(programs), random.pick([1, 1, 1, 0, 2]), random.pick(borderNumbers)];
  return message(
    [...header, random.below(7), random.pick([0, 0, 1, 1000, 0xffff_ffff]), random.below(4)],
    payload,
  );
}
