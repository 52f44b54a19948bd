import { test } from 'tap';
import { InvalidParams, type Issue } from '../../agent/errors.js';
import { issueSentence } from '../../agent/rpc/issue-text.js';
import { edgeLimits } from '../../agent/rpc/limits.js';
import { createValidator, type Validator } from '../../agent/rpc/validate.js';
import type { VerbName } from '../../agent/verbs/verb.js';

const validator: Validator = createValidator(edgeLimits);

function issues(verb: VerbName, params: unknown): readonly Issue[] {
  try {
    validator.checkParams(verb, params);
    return [];
  } catch (error) {
    if (error instanceof InvalidParams) return error.issues;
    throw error;
  }
}

const drive = {
  type: 'network',
  device: 'disk',
  protocol: 'nbd',
  name: 'x',
  hosts: [{ transport: 'unix', socket: '/run/x/nbd.sock' }],
  tls: false,
  format: 'raw',
  readonly: true,
  serial: 'abcdefghijklmnopqr27',
  capacity: 1048576,
};
const tcp = { ...drive, tls: true, hosts: [{ transport: 'tcp', name: '192.0.2.10', port: 10809 }] };
const byVm = { exportId: 'x', vmId: 'vm', disk: 'vda' };
const byPath = { exportId: 'x', path: '/images/a.qcow2', format: 'qcow2' };

test('what may be sent', async (t) => {
  const good: Array<[VerbName, object]> = [
    ['prepareBackupDisk', byVm],
    ['prepareBackupDisk', { ...byVm, snapshotId: 'before the update (2)' }],
    ['prepareBackupDisk', { ...byPath, since: { bitmap: 'monday' }, ifUntracked: 'full', inlineExtents: 0 }],
    ['prepareBackupDisk', { ...byPath, transport: { type: 'unix', user: 'backup' }, access: 'read-only' }],
    [
      'teardownBackupDisk',
      { exportId: '0123456789'.repeat(6).concat('abcd'), outcome: 'failed', force: true },
    ],
    ['hotplugDisk', { vmId: 'vm', drive, bus: 'scsi', target: 'sdb', persistent: true }],
    ['hotplugDisk', { vmId: 'vm', drive: tcp }],
    ['hotplugDisk', { vmId: 'vm', drive: { ...drive, later: { a: 1 }, requires: ['tls', 'serial'] } }],
    ['hotunplugDisk', { vmId: 'vm', drive, timeoutSeconds: 600 }],
    ['hotunplugDisk', { vmId: 'vm', target: 'vdb' }],
    [
      'getChangedBlocks',
      { exportId: 'x', offset: 2 ** 53 - 1, length: 1, maxExtents: 1, encoding: 'bitmap' },
    ],
    ['listExports', {}],
    ['drain', {}],
    ['drain', { timeoutSeconds: 86400 }],
    ['listExports', { vmId: 'vm' }],
  ];
  for (const [verb, params] of good)
    t.strictSame(issues(verb, structuredClone(params)), [], JSON.stringify(params));
});

test('defaults are filled in, also in members of members, and not shared between calls', async (t) => {
  const first: Record<string, unknown> = { ...byVm };
  validator.checkParams('prepareBackupDisk', first);
  t.strictSame(first, {
    ...byVm,
    access: 'read-only',
    transport: { type: 'unix' },
    inlineExtents: 1000,
  });
  Object.assign(first.transport as object, { user: 'somebody' });
  const second: Record<string, unknown> = { ...byVm };
  validator.checkParams('prepareBackupDisk', second);
  t.strictSame(second.transport, { type: 'unix' });
});

test('what may not, in words', async (t) => {
  const pair = 'name the disk by vmId and disk, or by path and format: one pair, whole';
  const id =
    'exportId must be a UUID, or 1-64 of letters, digits, "_", "." and "-", the first a letter or digit';
  const bad: Array<[VerbName, object, ...string[]]> = [
    ['prepareBackupDisk', {}, 'exportId is required', pair],
    ['prepareBackupDisk', { exportId: 'x' }, pair],
    ['prepareBackupDisk', { exportId: 'x', vmId: 'vm' }, pair],
    ['prepareBackupDisk', { exportId: 'x', path: '/a' }, pair],
    ['prepareBackupDisk', { ...byVm, path: '/a' }, pair],
    ['prepareBackupDisk', { ...byVm, format: 'raw' }, pair],
    [
      'prepareBackupDisk',
      { ...byPath, snapshotId: 's' },
      'snapshotId, backupId, checkpoint and quiesce go with vmId and disk, not with path',
    ],
    [
      'prepareBackupDisk',
      { ...byVm, since: { bitmap: 'b' } },
      'since {bitmap} goes with path, since {checkpoint} and {snapshot} with vmId',
    ],
    [
      'prepareBackupDisk',
      { ...byPath, since: { checkpoint: 'c' } },
      'since {bitmap} goes with path, since {checkpoint} and {snapshot} with vmId',
    ],
    [
      'prepareBackupDisk',
      { ...byVm, access: 'append' },
      'access must be "read-only" or "scratch" or "read-write"',
    ],
    ['prepareBackupDisk', { ...byVm, transport: { type: 'tcp' } }, 'transport.tls is required'],
    ['prepareBackupDisk', { ...byVm, inlineExtents: 10_001 }, 'inlineExtents must be at most 10000'],
    ['prepareBackupDisk', { ...byVm, inlineExtents: -1 }, 'inlineExtents must be at least 0'],
    ['prepareBackupDisk', { ...byVm, inlineExtents: 1.5 }, 'inlineExtents must be an integer'],
    ['prepareBackupDisk', { ...byVm, vmId: 7 }, 'vmId must be a string'],
    ['prepareBackupDisk', { ...byVm, vmId: '' }, "vmId must be a libvirt domain's UUID or name"],
    ['prepareBackupDisk', { ...byVm, vmId: 'a\nb' }, "vmId must be a libvirt domain's UUID or name"],
    ['prepareBackupDisk', { ...byVm, vmId: '\ud800' }, "vmId must be a libvirt domain's UUID or name"],
    ['prepareBackupDisk', { ...byVm, snapshotId: '\u0007' }, 'snapshotId must match ^[^\\p{Cc}\\p{Cs}]+$'],
    ['prepareBackupDisk', { ...byPath, format: 'vmdk' }, 'format must be "raw" or "qcow2"'],
    [
      'prepareBackupDisk',
      { ...byPath, path: 'a' },
      'path must be an absolute path without control characters',
    ],
    [
      'prepareBackupDisk',
      { ...byPath, path: 'json:{}' },
      'path must be an absolute path without control characters',
    ],
    ['teardownBackupDisk', { exportId: '../x' }, id],
    ['teardownBackupDisk', { exportId: '.x' }, id],
    ['teardownBackupDisk', { exportId: 'x\n' }, id],
    ['teardownBackupDisk', { exportId: 'x'.repeat(65) }, id],
    ['teardownBackupDisk', { exportId: 'x', outcome: 'good' }, 'outcome must be "success" or "failed"'],
    ['hotunplugDisk', { vmId: 'vm' }, 'name the disk by drive or by target: one of them'],
    [
      'hotunplugDisk',
      { vmId: 'vm', drive, target: 'vdb' },
      'name the disk by drive or by target: one of them',
    ],
    ['hotplugDisk', { vmId: 'vm', drive, target: 'vdb;' }, 'target must match ^(vd|sd)[a-z]{1,3}$'],
    ['hotplugDisk', { vmId: 'vm', drive: { ...drive, protocol: 'rbd' } }, 'drive.protocol must be "nbd"'],
    [
      'hotplugDisk',
      { vmId: 'vm', drive: { ...drive, hosts: [{ transport: 'rdma' }] } },
      'drive.hosts[0].transport must be "unix" or "tcp"',
    ],
    [
      'hotplugDisk',
      { vmId: 'vm', drive: { ...drive, hosts: [{ transport: 'tcp', name: 'a' }] } },
      'drive.hosts[0].port is required',
    ],
    ['hotplugDisk', { vmId: 'vm', drive: { ...drive, hosts: [] } }, 'drive.hosts must have at least 1 items'],
    [
      'hotplugDisk',
      { vmId: 'vm', drive: { ...drive, later: 1, requires: ['later'] } },
      "drive.requires[0] names a member that this version does not know, and the drive says that it must not be ignored: use a daemon of the exporting host's version",
    ],
    ['getChangedBlocks', { exportId: 'x', offset: 2 ** 53 }, 'offset must be at most 9007199254740991'],
    ['getHostInfo', { a: 1 }, 'a is not known here; known are no members'],
    ['getHostInfo', JSON.parse('{"__proto__": 1}'), '__proto__ is not known here; known are no members'],
  ];
  for (const [verb, params, ...sentences] of bad) {
    t.strictSame(
      issues(verb, structuredClone(params)).map(issueSentence).sort(),
      sentences.sort(),
      JSON.stringify(params),
    );
  }
});

test('paths are JSON pointers', async (t) => {
  const odd = issues('getHostInfo', { 'a/b~c': 1 });
  t.equal(odd[0]?.path, '/a~1b~0c');
  t.equal(issueSentence({ path: '/a~1b~0c/0/x', message: 'is odd' }), 'a/b~c[0].x is odd');
});

test('thousands of faults are answered with a few, and monstrous params with one', async (t) => {
  const many = Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`m${i}`, i]));
  t.equal(issues('getHostInfo', many).length, edgeLimits.issues);
  const wide = { vmId: 'vm', drive: { ...drive, x: Array(20_000).fill(0) } };
  t.match(issues('hotplugDisk', wide), [{ path: '', message: /10000 values/ }]);
  let deep: object = {};
  for (let i = 0; i < 5000; i++) deep = { deep };
  t.match(issues('hotplugDisk', { vmId: 'vm', drive: { ...drive, deep } }), [
    { path: '', message: /32 levels/ },
  ]);
});

test('results are held against their schemas', async (t) => {
  t.equal(validator.faultOfResult('teardownBackupDisk', { exportId: 'x', checkpoint: null }), undefined);
  t.match(validator.faultOfResult('teardownBackupDisk', { exportId: 'x' }), /checkpoint/);
  const bitmap = { granularity: 65536, bitmap: 'AA==', nextOffset: null };
  t.equal(validator.faultOfResult('getChangedBlocks', bitmap), undefined);
  t.match(validator.faultOfResult('getChangedBlocks', { ...bitmap, extents: [] }), /result/);
});
