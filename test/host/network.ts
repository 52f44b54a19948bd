import { execa } from 'execa';
import type { Host } from './host.js';

const DEADLINE_MS = 30_000;

/** A cable between two private hosts, which have networks of their own. The addresses are of RFC 5737, for examples. */
export interface Cable {
  readonly addresses: readonly [string, string];
  /** Pulled out, or put in again, at the first host. */
  set(state: 'up' | 'down'): Promise<void>;
}

/**
 * Joins two hosts by a pair of virtual Ethernet interfaces. Each end lives in its host's network namespace and goes with it:
 * there is nothing to clean up, whatever happens. After a reboot of either they have to be joined anew.
 */
export async function joinHosts(one: Host, other: Host): Promise<Cable> {
  const addresses = ['192.0.2.1', '192.0.2.2'] as const;
  // Made within a namespace from the first: the machine's own never has either of them.
  const peer = ['peer', 'name', 'eth0', 'netns', String(other.pid)];
  await inNetworkOf(one, 'link', 'add', 'eth0', 'type', 'veth', ...peer);
  for (const [host, address] of [
    [one, addresses[0]],
    [other, addresses[1]],
  ] as const) {
    await inNetworkOf(host, 'address', 'add', `${address}/24`, 'dev', 'eth0');
    await inNetworkOf(host, 'link', 'set', 'eth0', 'up');
  }
  return { addresses, set: (state) => inNetworkOf(one, 'link', 'set', 'eth0', state) };
}

/** ip(8) in the host's network, and in the machine's pid namespace, by which the other host's is named. */
async function inNetworkOf(host: Host, ...args: string[]): Promise<void> {
  await execa('nsenter', [`--target=${host.pid}`, '--net', '--', 'ip', ...args], { timeout: DEADLINE_MS });
}
