import type { Stage } from '../stage.js';

/** A walk through some verbs, as a backup tool would take it, that leaves nothing behind. */
export interface Scenario {
  /** In a seed's replay: letters and digits. */
  name: string;
  /** The VM whose QEMU matters to it, where there is one. */
  vm?: 'live' | 'app';
  /** Whether clients come by way of the gateway. */
  network?: boolean;
  /** Whether a qemu-nbd serves in it; another one in front of that, which is thrown away; something that makes a file. */
  qemuNbd?: boolean;
  overlay?: boolean;
  file?: boolean;
  /** What it looks at it checks itself. @throws what a caller should not see */
  play(stage: Stage): Promise<void>;
}
