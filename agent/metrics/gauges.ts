/** What is looked up when it is asked for: exports, backups, jobs, leases, the gateway, the connection to libvirt. */
import { Counter, Gauge, type Registry } from 'prom-client';
import type { ExportsContext } from '../exports/context.js';
import type { ExportRecord } from '../exports/record.js';
import { askGateway, type GatewayStatus } from '../gateway/status.js';
import { leaseLeft } from '../host/lease.js';

/** Milliseconds that the gateway has to tell its counts. A scrape has no more than seconds. */
const GATEWAY_MS = 1000;

export interface Gauges {
  /** Looks now; without it they are as they were. */
  look(): Promise<void>;
}

export function createGauges(registry: Registry, context: ExportsContext): Gauges {
  const registers = [registry];
  const gauge = <L extends string>(name: string, help: string, labelNames: L[]): Gauge<L> =>
    new Gauge({ name: `vmdiskd_${name}`, help, labelNames, registers });
  const exports = gauge('exports', 'Exports by state', ['state']);
  const backups = gauge('backups', 'Backup jobs by state, those of single exports too', ['state']);
  const jobs = gauge('jobs', 'Jobs that run, by the verb that began them', ['verb']);
  const leases = gauge('leases', 'Exports and backups that end unless their lease is renewed', ['of']);
  const left = gauge('lease_left_seconds', 'Until the lease ends', ['of', 'id']);
  const labels: ('export' | 'vm' | 'disk')[] = ['export', 'vm', 'disk'];
  const clients = gauge('export_clients', 'Connections to a network export', labels);
  // Counted by the gateway: they are set to what it tells.
  const counter = (name: string, help: string): Counter<'export' | 'vm' | 'disk'> =>
    new Counter({ name: `vmdiskd_${name}`, help, labelNames: labels, registers });
  const sent = counter(
    'export_sent_bytes_total',
    'Bytes sent to clients of a network export, since the gateway runs',
  );
  const received = counter('export_received_bytes_total', 'Bytes received from them');
  const gateway = gauge('gateway_up', 'Whether vmdiskd-gateway answers; only where it is set up', []);
  const connected = gauge('libvirt_connected', 'Whether libvirt answers', []);
  const waiting = gauge('libvirt_calls', 'Calls to libvirt now: at work there, or waiting for their turn', [
    'where',
  ]);

  /** All states from the first, so that a graph has a line where there is nothing yet. */
  const count = (
    into: Gauge<'state'>,
    states: readonly string[],
    records: readonly { state: string }[],
  ): void => {
    for (const state of states)
      into.set({ state }, records.filter((record) => record.state === state).length);
  };

  return {
    async look() {
      const live = context.registry.allLive();
      const jobsOfBackups = context.backups.allLive();
      count(exports, ['starting', 'ready', 'failed', 'closing'], live);
      count(backups, ['starting', 'running', 'failed', 'ending'], jobsOfBackups);
      jobs.reset();
      for (const { work } of context.jobs.allLive()) jobs.inc({ verb: work });
      left.reset();
      const lookAtLeases = (
        of: string,
        records: readonly { id: string; lease: ExportRecord['lease'] }[],
      ): void => {
        const held = records.filter(({ lease }) => lease !== null);
        leases.set({ of }, held.length);
        for (const { id, lease } of held) {
          if (lease !== null) left.set({ of, id }, leaseLeft(context.clock, lease) / 1000);
        }
      };
      lookAtLeases(
        'export',
        live.map(({ exportId, lease }) => ({ id: exportId, lease })),
      );
      lookAtLeases(
        'backup',
        jobsOfBackups.map(({ backupId, lease }) => ({ id: backupId, lease })),
      );

      const { status } = context.libvirt;
      connected.set(Number(status.connected));
      waiting.set({ where: 'at-work' }, status.inFlight);
      waiting.set({ where: 'waiting' }, status.waiting);

      const { networkExports, run } = context.settings;
      if (!networkExports) return;
      const told = await askGateway(run, { timeoutMs: GATEWAY_MS }).catch(() => undefined);
      gateway.set(Number(told !== undefined));
      // Without a pause from here on: who asks at the same time must not see them counted twice.
      for (const one of [clients, sent, received]) one.reset();
      for (const record of live) setTraffic(record, told);
    },
  };

  function setTraffic({ exportId, vm, disk }: ExportRecord, told: GatewayStatus | undefined): void {
    const traffic = told?.exports[exportId];
    if (traffic === undefined) return;
    const about = { export: exportId, vm: vm?.name ?? '', disk: disk ?? '' };
    clients.set(about, traffic.clients);
    sent.inc(about, traffic.sent);
    received.inc(about, traffic.received);
  }
}
