/** Calls of the libvirt client with the answers that a libvirtd gives, in bytes and as values. */
import type { Domain, EventName, LibvirtClient } from '../../agent/libvirt/index.js';
import { dom, str, words } from '../libvirt/fake-libvirtd.js';

export interface KnownCall {
  /** REMOTE_PROC_... of src/remote/remote_protocol.x. */
  readonly procedure: number;
  readonly make: (client: LibvirtClient) => Promise<unknown>;
  /** The payload of the reply. */
  readonly payload: Buffer;
  readonly value: unknown;
}

const web1: Domain = { name: 'web1', uuid: '01010101-0101-0101-0101-010101010101', id: 1 };
const domain = dom('web1', 1);
const bytes = Buffer.concat;
const param = (name: string, type: number, value: Buffer): Buffer => bytes([str(name), words(type), value]);
const params = bytes([
  words(5),
  param('a', 1, words(-1)),
  param('b', 4, words(0, 7)),
  param('c', 3, words(-1, -5)),
  param('d', 6, words(1)),
  param('é', 7, str('text')),
]);
/** Without a prototype, as the client makes them. */
const paramValues = Object.assign(Object.create(null), { a: -1, b: 7, c: -5, d: true, é: 'text' });
const named = bytes([str('one'), domain]);

export const knownCalls: readonly [KnownCall, ...KnownCall[]] = [
  { procedure: 59, make: (c) => c.host.getHostname(), payload: str('host'), value: 'host' },
  { procedure: 157, make: (c) => c.host.getLibVersion(), payload: words(0, 9_000_000), value: 9_000_000 },
  { procedure: 23, make: (c) => c.domains.lookupByName('web1'), payload: domain, value: web1 },
  {
    procedure: 273,
    make: (c) => c.domains.listAll(),
    payload: bytes([words(2), domain, dom('db1', 2, -1), words(2)]),
    value: [web1, { name: 'db1', uuid: '02020202-0202-0202-0202-020202020202', id: -1 }],
  },
  {
    procedure: 14,
    make: (c) => c.domains.getXMLDesc(web1),
    payload: str(`<domain>${'x'.repeat(3000)}</domain>`),
    value: `<domain>${'x'.repeat(3000)}</domain>`,
  },
  {
    procedure: 212,
    make: (c) => c.domains.getState(web1),
    payload: words(1, 5),
    value: { state: 1, reason: 5 },
  },
  {
    procedure: 16,
    make: (c) => c.domains.getInfo(web1),
    payload: words(1, 0, 64, 0, 32, 2, 1, 1),
    value: { state: 1, maxMemoryKiB: 64, memoryKiB: 32, vcpus: 2, cpuTimeNs: 2n ** 32n + 1n },
  },
  { procedure: 150, make: (c) => c.domains.isActive(web1), payload: words(1), value: true },
  { procedure: 34, make: (c) => c.domains.suspend(web1), payload: Buffer.alloc(0), value: undefined },
  {
    procedure: 194,
    make: (c) => c.block.getInfo(web1, 'vda'),
    payload: words(0, 1, 0, 2, 0, 3),
    value: { allocation: 1, capacity: 2, physical: 3 },
  },
  {
    procedure: 243,
    make: (c) => c.block.getStats(web1, 'vda'),
    payload: bytes([params, words(5)]),
    value: paramValues,
  },
  {
    procedure: 238,
    make: (c) => c.block.getJobInfo(web1, 'vda'),
    payload: words(1, 2, 0, 3, 0, 4, 0, 5),
    value: { type: 2, bandwidth: 3, current: 4, end: 5 },
  },
  {
    procedure: 263,
    make: (c) => c.block.getDiskErrors(web1),
    payload: bytes([words(1), str('vda'), words(2, 1)]),
    value: [{ disk: 'vda', error: 2 }],
  },
  {
    procedure: 298,
    make: (c) => c.jobs.getStats(web1),
    payload: bytes([words(1), params]),
    value: { type: 1, params: paramValues },
  },
  {
    procedure: 413,
    make: (c) => c.checkpoints.listAll(web1),
    payload: bytes([words(2), named, named, words(2)]),
    value: [
      { name: 'one', domain: web1 },
      { name: 'one', domain: web1 },
    ],
  },
  {
    procedure: 189,
    make: (c) => c.snapshots.lookupByName(web1, 'one'),
    payload: named,
    value: { name: 'one', domain: web1 },
  },
];

/** The procedure of each event and its payload: the callback's number, then the message. */
export const knownEvents: readonly [[EventName, number, Buffer], ...[EventName, number, Buffer][]] = [
  ['lifecycle', 318, bytes([words(40), domain, words(2, 0)])],
  ['reboot', 319, bytes([words(41), domain])],
  ['ioError', 324, bytes([words(46), domain, str('/a'), str('vda'), words(1), str('enospc')])],
  ['diskChange', 327, bytes([words(49), domain, words(1), str('/a'), words(0), str('vda'), words(1)])],
  ['deviceRemoved', 333, bytes([words(55), domain, str('ua-x')])],
  ['blockJob', 339, bytes([words(56), domain, str('vda'), words(1, 0)])],
  ['agentLifecycle', 348, bytes([words(58), domain, words(1, 2)])],
  ['deviceAdded', 354, bytes([words(59), domain, str('ua-x')])],
  ['jobCompleted', 363, bytes([words(61), domain, params])],
  ['deviceRemovalFailed', 367, bytes([words(62), domain, str('ua-x')])],
  ['blockThreshold', 385, bytes([words(64), domain, str('vda'), words(0, 0, 1, 0, 2)])],
];

/**
 * What kind of value it is, without what is in it: two answers to one call have the same, whatever the libvirtd sent. A
 * 64-bit typed parameter is a number or a bigint, and which parameters there are is libvirtd's affair.
 */
export function shapeOf(value: unknown): string {
  if (value === null || value === undefined) return 'nothing';
  if (Array.isArray(value)) return `list of ${[...new Set(value.map(shapeOf))].join('|')}`;
  if (typeof value !== 'object') return typeof value;
  if (Object.getPrototypeOf(value) === null) {
    const scalar = Object.values(value).every((one) => /^(number|bigint|boolean|string)$/.test(typeof one));
    return scalar ? 'params' : 'params that are none';
  }
  return `{${Object.entries(value)
    .map(([name, member]) => `${name}: ${shapeOf(member)}`)
    .sort()
    .join(', ')}}`;
}
