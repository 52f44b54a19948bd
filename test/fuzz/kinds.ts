import { edgeFuzzer } from './edge.js';
import { libvirtFuzzer } from './libvirt.js';
import { nbdFuzzer } from './nbd.js';
import { recordsFuzzer } from './records.js';
import type { Fuzzer, Teardown } from './run.js';
import { startsFuzzer } from './starts.js';

export interface FuzzKind {
  /** Its part of the inputs of a long run. */
  readonly share: number;
  /** How many inputs a run in CI has of it: all kinds together 5,000. */
  readonly inCi: number;
  readonly start: (t: Teardown) => Promise<Fuzzer>;
}

export const kinds: Readonly<Record<string, FuzzKind>> = {
  edge: { share: 0.35, inCi: 1200, start: edgeFuzzer },
  libvirt: { share: 0.2, inCi: 800, start: libvirtFuzzer },
  nbd: { share: 0.2, inCi: 2490, start: nbdFuzzer },
  records: { share: 0.2, inCi: 500, start: recordsFuzzer },
  starts: { share: 0.004, inCi: 10, start: startsFuzzer },
};
