/** A real guest that writes on and on through all that is done to it, and knows what it has written. */
import type { Guest } from '../host/guest.js';
import type { Host } from '../host/host.js';
import { poll } from '../host/poll.js';
import { pidOf } from './libvirt-facts.js';
import { type CampaignVm, SIZE } from './vms.js';

/** Sectors that are written to in turn. */
const SLOTS = 1024;
const SECTOR = 512;
const BEAT_MS = 30_000;

/**
 * One numbered sector after another, each on the disk before the next is begun, and an older one read back. A number in
 * /tmp/beat says how far it is, a word in /tmp/bad what went wrong.
 */
const WRITER = `
n=0
sector() { dd if=/dev/vda bs=${SECTOR} skip=$1 count=1 2>/dev/null | head -n 1 | tr -d ' '; }
while [ ! -e /tmp/bad ]; do
  n=$((n + 1))
  printf '%-${SECTOR - 1}s\\n' "number$n" |
    dd of=/dev/vda bs=${SECTOR} seek=$((n % ${SLOTS})) conv=notrunc,fsync 2>/dev/null || echo "write $n" >/tmp/bad
  echo $n >/tmp/beat
  old=$((n > ${SLOTS / 2} ? n - ${SLOTS / 2} : 1))
  [ "$(sector $((old % ${SLOTS})))" = "number$old" ] || echo "read $old: $(sector $((old % ${SLOTS})))" >/tmp/bad
  sleep 0.2
done`;

export class WritingGuest implements CampaignVm {
  readonly name = 'guest';
  readonly runs = true;
  readonly disks: readonly { path: string }[];
  readonly #host: Host;
  readonly #guest: Guest;
  readonly #pid: number | null;

  private constructor(host: Host, guest: Guest, path: string) {
    this.#host = host;
    this.#guest = guest;
    this.disks = [{ path }];
    this.#pid = pidOf(host, this.name);
  }

  static async boot(host: Host): Promise<WritingGuest> {
    const path = await host.createImage({ name: 'guest-vda.qcow2', format: 'qcow2', size: SIZE });
    const guest = await host.startGuest({ name: 'guest', disks: [{ target: 'vda', path, format: 'qcow2' }] });
    await guest.sh(`(${WRITER}\n) >/dev/null 2>&1 &`);
    const booted = new WritingGuest(host, guest, path);
    await poll('the guest to begin to write', BEAT_MS, async () => (await booted.beat()) > 0);
    return booted;
  }

  get pid(): number | null {
    return this.#pid;
  }

  alive(): boolean {
    return pidOf(this.#host, this.name) === this.#pid;
  }

  /** No fault of the campaign ends it. */
  died(): void {
    throw new Error('the guest has died');
  }

  async start(): Promise<void> {
    this.died();
  }

  /** It goes on writing, and has found nothing wrong. @throws where not */
  async writes(): Promise<void> {
    const before = await this.beat();
    await poll('the guest to write on', BEAT_MS, async () => (await this.beat()) > before);
  }

  /** The number of the last write that it knows to be on its disk. @throws where it has found something wrong */
  async beat(): Promise<number> {
    const [beat = '', bad = ''] = (
      await this.#guest.sh('cat /tmp/beat || echo 0; cat /tmp/bad || true')
    ).split('\n');
    if (bad !== '') throw new Error(`the guest found its disk wrong: ${bad}`);
    return Number(beat);
  }

  /**
   * What a disk of it holds must be one moment of it: all writes up to some number, and none after that.
   * @returns that number
   * @throws where it is not
   */
  momentOf(bytes: Buffer): number {
    const numbers = Array.from({ length: SLOTS }, (_, slot) => {
      const sector = bytes.subarray(slot * SECTOR, (slot + 1) * SECTOR).toString('latin1');
      return Number(/^number(\d+) *\n$/.exec(sector)?.[1] ?? (/^\0*$/.test(sector) ? 0 : Number.NaN));
    });
    const last = Math.max(...numbers);
    numbers.forEach((number, slot) => {
      const expected = last - ((((last - slot) % SLOTS) + SLOTS) % SLOTS);
      if (number !== Math.max(expected, 0))
        throw new Error(`sector ${slot} has ${number} when ${last} was written`);
    });
    return last;
  }

  /** What it reads under a name that its udev makes. */
  async read(path: string): Promise<string> {
    await poll(
      `${path} in the guest`,
      BEAT_MS,
      async () => (await this.#guest.try(`[ -e ${path} ]`)).exitCode === 0,
    );
    return this.#guest.sha256(path);
  }
}
