/** What is measured as it happens: verbs, calls to libvirt, and the process itself. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

export interface Instruments {
  readonly registry: Registry;
  /** A verb has ended. @param outcome `done`, or the error's name */
  verb(name: string, outcome: string, ms: number): void;
  /** A call to libvirt has ended, its wait for a turn included. @param outcome `done`, or the error's name */
  libvirtCall(procedure: string, outcome: string, ms: number): void;
}

/** From a lookup to a merge's begin; in seconds. */
const VERB_SECONDS = [0.005, 0.02, 0.1, 0.5, 1, 5, 20, 60, 300];
/** libvirt answers in a millisecond, and waits 30 s for a domain's lock. */
const LIBVIRT_SECONDS = [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 30, 60];

/** @param version the daemon's */
export function createInstruments(version: string): Instruments {
  const registry = new Registry();
  const registers = [registry];
  // CPU, memory, open files, and how late the event loop is, by the names that dashboards for Node know.
  collectDefaultMetrics({ register: registry });
  const info = new Gauge({
    name: 'vmdiskd_info',
    help: 'The version of the daemon; always 1',
    labelNames: ['version'],
    registers,
  });
  info.set({ version }, 1);
  const verbs = new Counter({
    name: 'vmdiskd_verbs_total',
    help: 'Calls by verb and outcome: done, or the name of the error',
    labelNames: ['verb', 'outcome'],
    registers,
  });
  const verbSeconds = new Histogram({
    name: 'vmdiskd_verb_seconds',
    help: 'How long verbs took, refused ones too',
    labelNames: ['verb'],
    buckets: VERB_SECONDS,
    registers,
  });
  const calls = new Counter({
    name: 'vmdiskd_libvirt_calls_total',
    help: 'Calls to libvirt by procedure and outcome: done, or the kind of failure',
    labelNames: ['procedure', 'outcome'],
    registers,
  });
  const callSeconds = new Histogram({
    name: 'vmdiskd_libvirt_call_seconds',
    help: 'How long calls to libvirt took, the wait for their turn included',
    labelNames: ['procedure'],
    buckets: LIBVIRT_SECONDS,
    registers,
  });
  return {
    registry,
    verb(verb, outcome, ms) {
      verbs.inc({ verb, outcome });
      verbSeconds.observe({ verb }, ms / 1000);
    },
    libvirtCall(procedure, outcome, ms) {
      calls.inc({ procedure, outcome });
      callSeconds.observe({ procedure }, ms / 1000);
    },
  };
}
