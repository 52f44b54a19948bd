/** Who may do what: each verb in each role, ownership, and what lists and events show. Needs root. */
import { randomUUID } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Transport, Verbs } from '../../agent/api/generated.js';
import { defineVm, MiB, prepare, verb } from '../exports/rig.js';
import type { DaemonHandle } from '../host/daemon.js';
import { type Host, startHost } from '../host/host.js';
import { joinHosts } from '../host/network.js';
import { makePki, type Pki } from '../tls/pki.js';
import { installQemuCertificate } from '../tls/qemu-certificates.js';

t.setTimeout(600_000);

const PORT = 16520;
const CALLERS = ['observer', 'backup', 'restore', 'admin', 'other'] as const;
type CallerName = (typeof CALLERS)[number];
type VerbName = Exclude<keyof Verbs, 'rpc.discover'>;

/** The least role of each verb, as "Who may do what" has it. */
const LEAST: Record<VerbName, 'observer' | 'backup' | 'admin'> = {
  ...{
    getHostInfo: 'observer',
    listExports: 'observer',
    getExport: 'observer',
    getChangedBlocks: 'observer',
  },
  ...{ listBackups: 'observer', listJobs: 'observer', getJob: 'observer', listDisks: 'observer' },
  ...{
    listSnapshots: 'observer',
    getSnapConfig: 'observer',
    listCheckpoints: 'observer',
    waitEvents: 'observer',
  },
  ...{
    prepareBackupDisk: 'backup',
    teardownBackupDisk: 'backup',
    mountDisk: 'backup',
    unmountDisk: 'backup',
    renewExport: 'backup',
    hotplugDisk: 'backup',
  },
  ...{ hotunplugDisk: 'backup', startBackup: 'backup', stopBackup: 'backup', renewBackup: 'backup' },
  ...{ createSnapshot: 'backup', deleteSnapshot: 'backup', confirmCheckpoint: 'backup' },
  ...{ deleteCheckpoint: 'backup', redefineCheckpoints: 'backup', cancelJob: 'backup' },
  drain: 'admin',
};

const JOB = '7d444840-9dc0-11d1-b245-5ffdce74fad2';
const DRIVE = {
  ...{ type: 'network', device: 'disk', protocol: 'nbd', name: 'none', tls: false, format: 'raw' },
  hosts: [{ transport: 'unix', socket: '/run/vmdiskd/exports/none/nbd.sock' }],
  ...{ readonly: true, serial: 'a'.repeat(20), capacity: MiB },
};

/** Params of each verb that ask for nothing that is there. */
function paramsOf(vmId: string, tag: string): Record<VerbName, object> {
  const [exportId, backupId, snapshotId, checkpoint] = ['none', 'none', 'none', 'none'];
  return {
    getHostInfo: {},
    listExports: {},
    getExport: { exportId },
    getChangedBlocks: { exportId },
    listBackups: {},
    listJobs: {},
    getJob: { jobId: JOB },
    listDisks: { vmId },
    listSnapshots: { vmId },
    getSnapConfig: { vmId, snapshotId },
    listCheckpoints: { vmId },
    waitEvents: { timeoutSeconds: 0 },
    prepareBackupDisk: { exportId: `try-${tag}`, vmId, disk: 'nope' },
    teardownBackupDisk: { exportId },
    mountDisk: { exportId: `try-mount-${tag}`, vmId, disk: 'nope' },
    unmountDisk: { exportId },
    renewExport: { exportId, leaseSeconds: 60 },
    hotplugDisk: { vmId, drive: DRIVE },
    hotunplugDisk: { vmId, target: 'vdz' },
    startBackup: { backupId: `try-${tag}`, vmId, disks: [{ disk: 'nope' }] },
    stopBackup: { backupId },
    renewBackup: { backupId, leaseSeconds: 60 },
    createSnapshot: { snapshotId: `try-${tag}`, vmId, disks: ['nope'] },
    deleteSnapshot: { vmId, snapshotId },
    confirmCheckpoint: { vmId, checkpoint, outcome: 'failed' },
    deleteCheckpoint: { vmId, checkpoint },
    redefineCheckpoints: { vmId },
    cancelJob: { jobId: JOB },
    drain: { timeoutSeconds: 1 },
  };
}

const isBoundToVm = (name: VerbName) => 'vmId' in paramsOf('v', '')[name];

interface Answer {
  result?: unknown;
  error?: { code: number; message: string; data: { name: string } };
}

let host: Host;
let daemon: DaemonHandle;
let pki: Pki;
const disks: Record<string, string> = {};

t.before(async () => {
  host = await startHost(t);
  pki = await makePki(join(host.dir, 'pki'));
  for (const name of ['mine', 'others', 'loose']) {
    disks[name] = await host.createImage({ name: `${name}.qcow2`, format: 'qcow2', size: 4 * MiB });
  }
  // What a guest may write to its raw disk: read as qcow2 it is another VM's.
  const backing = { path: disks.others as string, format: 'qcow2' };
  disks.trap = await host.createImage({ name: 'trap.raw', format: 'qcow2', backing });
  for (const name of ['mine', 'others']) {
    const own = { path: disks[name] as string, format: 'qcow2', target: 'vda' } as const;
    const trap = { path: disks.trap, format: 'raw', target: 'vdb' } as const;
    await defineVm(host, { name, disks: name === 'mine' ? [own, trap] : [own] });
  }
  await installQemuCertificate(host, pki, 'appliance');
  daemon = await host.startDaemon({
    hotplug: { allowedHosts: ['192.0.2.1'] },
    rpc: { https: [`127.0.0.1:${PORT}`] },
    tls: pki.tls,
    roles: [
      { identity: 'dns:observer.example', role: 'observer', vms: ['mine'] },
      { identity: 'subject:CN=backup', role: 'backup', vms: ['mine', 'appliance'] },
      { identity: 'dns:restore.example', role: 'restore', vms: ['mine'] },
      { identity: 'dns:admin.example', role: 'admin' },
    ],
  });
});

/** One POST with a batch, as that caller. */
async function batch(as: CallerName, calls: [method: string, params: object][]): Promise<Answer[]> {
  const body = join(host.dir, `body-${randomUUID()}.json`);
  writeFileSync(
    body,
    JSON.stringify(calls.map(([method, params], id) => ({ jsonrpc: '2.0', id, method, params }))),
  );
  const to = ['--data-binary', `@${body}`, `https://127.0.0.1:${PORT}/`];
  const said = await host.must('curl', [...pki.curl(as), ...to], { timeoutMs: 120_000 });
  const answers: (Answer & { id: number })[] = JSON.parse(said);
  return answers.sort((a, b) => a.id - b.id);
}

async function one<N extends VerbName>(as: CallerName, method: N, params: object): Promise<Answer> {
  const [answer] = await batch(as, [[method, params]]);
  return answer ?? {};
}

const isRefused = ({ error }: Answer) => error?.data.name === 'NotAuthorized';

t.test('each verb in each role, of a VM of its own and of another', async (t) => {
  const verbs = Object.keys(LEAST) as VerbName[];
  const known = (await verb(daemon, 'rpc.discover', {})) as { methods: { name: string }[] };
  t.strictSame(
    verbs.toSorted(),
    known.methods
      .map(({ name }) => name)
      .filter((name) => name !== 'rpc.discover')
      .sort(),
    'the table has every verb',
  );
  for (const vm of ['mine', 'others', 'no-such-vm']) {
    for (const caller of CALLERS) {
      const params = paramsOf(vm, `${caller}-${vm}`);
      const answers = await batch(
        caller,
        verbs.map((name) => [name, params[name]]),
      );
      const rank = { other: -1, observer: 0, backup: 1, restore: 1, admin: 2 }[caller];
      verbs.forEach((name, index) => {
        const least = ['observer', 'backup', 'admin'].indexOf(LEAST[name]);
        const may = rank === 2 || (rank >= least && (vm === 'mine' || !isBoundToVm(name)));
        const answer = answers[index] as Answer;
        t.equal(
          isRefused(answer),
          !may,
          `${caller}: ${name} of ${vm}: ${JSON.stringify(answer).slice(0, 300)}`,
        );
        if (may) return;
        t.match(answer.error, { code: 5017, message: /needs the role (observer|backup|admin)/ });
      });
    }
  }
});

t.test(
  'what one has made is its own: others may not use, end or see it; an observer of the VM sees it',
  async (t) => {
    const exportId = 'owned';
    const start = await one('admin', 'waitEvents', { timeoutSeconds: 0 });
    const { next } = start.result as Verbs['waitEvents']['result'];
    const params = { exportId, vmId: 'mine', disk: 'vda' };
    const { result } = await one('backup', 'prepareBackupDisk', params);
    t.match(result, { exportId });
    t.strictSame((await one('backup', 'prepareBackupDisk', params)).result, result, 'a retry is answered');
    const seen = async (as: CallerName) => {
      const [list, get, map, events] = await batch(as, [
        ['listExports', {}],
        ['getExport', { exportId }],
        ['getChangedBlocks', { exportId }],
        ['waitEvents', { after: next, timeoutSeconds: 0 }],
      ]);
      return [
        (list?.result as Verbs['listExports']['result'] | undefined)?.exports.map((row) => row.owner),
        !isRefused(get ?? {}),
        !isRefused(map ?? {}),
        (events?.result as Verbs['waitEvents']['result'] | undefined)?.events.map(({ kind }) => kind),
      ];
    };
    const whole = [['subject:CN=backup'], true, true, ['exportReady']];
    t.strictSame(await seen('backup'), whole);
    t.strictSame(await seen('observer'), whole);
    t.strictSame(await seen('admin'), whole);
    t.strictSame(await seen('restore'), [[], false, false, []]);
    for (const caller of ['restore', 'observer'] as const) {
      const answers = await batch(caller, [
        ['prepareBackupDisk', params],
        ['renewExport', { exportId, leaseSeconds: 60 }],
        ['teardownBackupDisk', { exportId, outcome: 'failed' }],
        ['hotplugDisk', { vmId: 'mine', drive: (result as Verbs['prepareBackupDisk']['result']).drive }],
      ]);
      t.ok(answers.every(isRefused), `${caller}: ${JSON.stringify(answers)}`);
    }
    t.match((await verb(daemon, 'getExport', { exportId })).state, 'ready');
    t.match(await one('backup', 'teardownBackupDisk', { exportId, outcome: 'failed' }), {
      result: { exportId },
    });
    t.ok(isRefused(await one('restore', 'prepareBackupDisk', params)), 'nor its id, for an hour');
  },
);

t.test(
  'two that make the same thing at the same moment: one has it, and the other learns nothing of it',
  async (t) => {
    for (let round = 0; round < 5; round++) {
      const exportId = `race-${round}`;
      const params = { exportId, vmId: 'mine', disk: 'vda' };
      const answers = await Promise.all(
        (['backup', 'restore'] as const).map((as) => one(as, 'prepareBackupDisk', params)),
      );
      t.equal(
        answers.filter(({ result }) => result !== undefined).length,
        1,
        JSON.stringify(answers).slice(0, 300),
      );
      const name = answers.find(({ error }) => error !== undefined)?.error?.data.name ?? '';
      t.match(name, /^(NotAuthorized|AlreadyExists)$/);
      await verb(daemon, 'teardownBackupDisk', { exportId });
    }
  },
);

t.test('an image by its path counts as the VM whose disk it is', async (t) => {
  const of = (exportId: string, path: string | undefined) => ({ exportId, path, format: 'qcow2' });
  for (const [name, as, may] of [
    ['mine', 'backup', true],
    ['others', 'backup', false],
    ['loose', 'restore', false],
    ['loose', 'admin', true],
  ] as const) {
    const exportId = `path-${name}-${as}`;
    const answer = await one(as, 'prepareBackupDisk', of(exportId, disks[name]));
    t.equal(isRefused(answer), !may, JSON.stringify(answer));
    if (!may) t.match(answer.error?.message, name === 'loose' ? /needs the role admin/ : /for the VM that/);
    else await one(as, 'teardownBackupDisk', { exportId });
  }
});

t.test(
  'it is read as the VM reads it: a raw disk cannot claim another VM’s as its backing file',
  async (t) => {
    const { trap: path } = disks;
    t.match(await one('backup', 'prepareBackupDisk', { exportId: 'trap', path, format: 'qcow2' }), {
      error: { message: /trap.raw" is raw to mine; give that format/, data: { name: 'WrongFormat' } },
    });
    const asRaw = { exportId: 'trap', path, format: 'raw' };
    t.match(await one('backup', 'prepareBackupDisk', asRaw), { result: { exportId: 'trap' } });
    await one('backup', 'teardownBackupDisk', { exportId: 'trap' });
  },
);

t.test('another’s drive stays where it is, however the VM is called', async (t) => {
  const scsi = "<controller type='scsi' index='0' model='virtio-scsi'/>";
  const uuid = await defineVm(host, { name: 'appliance', devicesXml: scsi });
  await host.virsh('start', '--paused', 'appliance');
  const { drive } = await prepare(daemon, {
    exportId: 'plugged',
    path: disks.loose as string,
    format: 'qcow2',
  });
  const { target } = await verb(daemon, 'hotplugDisk', { vmId: 'appliance', drive });
  for (const vmId of ['appliance', uuid, uuid.toUpperCase()]) {
    for (const which of [{ target }, { drive }]) {
      t.ok(
        isRefused(await one('backup', 'hotunplugDisk', { vmId, ...which })),
        `${vmId} ${Object.keys(which)}`,
      );
    }
  }
  t.match(await verb(daemon, 'getExport', { exportId: 'plugged' }), { attachedTo: [{ target }] });
  await verb(daemon, 'teardownBackupDisk', { exportId: 'plugged', force: true });
});

t.test('so does a drive of another host, which no export here is of', async (t) => {
  const there = await startHost(t);
  await joinHosts(there, host);
  const [listen, exportId] = ['192.0.2.1:10809', 'remote'];
  const gateway = { gateway: { listen: [listen] }, tls: pki.tls };
  const exporter = await there.startDaemon(gateway);
  await there.startGateway(gateway);
  const path = await there.createImage({ name: 'remote.raw', format: 'raw', size: MiB });
  const transport: Transport = { type: 'tcp', tls: 'x509', clients: ['dns:appliance.example'] };
  const { drive } = await prepare(exporter, { exportId, path, format: 'raw', transport });
  const vmId = 'appliance';
  const target = 'sda';
  const ways = [
    ['hotplugDisk', { vmId, drive }],
    ['hotunplugDisk', { vmId, drive }],
    ['hotunplugDisk', { vmId, target }],
  ] as const;

  t.match(await verb(daemon, 'hotplugDisk', { vmId, drive }), { target });
  for (const [method, params] of ways) {
    t.match(
      await one('backup', method, params),
      { error: { code: 5017, message: /drive "remote" is for the identity that made it/ } },
      `another's: ${method} by ${Object.keys(params)}`,
    );
  }
  t.match(await host.virsh('dumpxml', vmId), drive.serial);
  t.match(await verb(daemon, 'hotunplugDisk', { vmId, target }), { target });

  t.match(await one('backup', 'hotplugDisk', { vmId, drive }), { result: { target } });
  for (const [method, params] of ways) {
    t.ok(isRefused(await one('restore', method, params)), `of a VM that is not its own: ${method}`);
  }
  t.match(await one('backup', 'hotplugDisk', { vmId, drive }), { result: { target } }, 'a retry of its own');
  t.match(await one('backup', 'hotunplugDisk', { vmId, target }), { result: { target } });
  t.match(await one('backup', 'hotplugDisk', { vmId, drive }), { result: { target } });
  t.match(await one('admin', 'hotunplugDisk', { vmId, drive }), { result: { target } }, 'an admin may');
  t.notMatch(await host.virsh('dumpxml', vmId), drive.serial);
  await host.virsh('destroy', vmId);
});

t.test(
  'the audit has a line for each change: who, what, of which thing, how it went; none for what reads',
  async (t) => {
    const lines = daemon
      .log()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter(({ audit }) => audit === true);
    const ofExport = lines.filter(({ exportId }) => exportId === 'owned');
    t.match(ofExport.slice(0, 2), [
      {
        identity: 'subject:CN=backup',
        verb: 'prepareBackupDisk',
        vmId: 'mine',
        disk: 'vda',
        outcome: 'done',
      },
      { identity: 'subject:CN=backup', verb: 'prepareBackupDisk', outcome: 'done' },
    ]);
    t.match(
      ofExport.find(({ identity }) => identity === 'dns:restore.example'),
      { outcome: 'failed', error: 'NotAuthorized' },
    );
    t.notOk(lines.some(({ verb }) => /^(get|list|wait)/.test(String(verb))));
  },
);

t.test(
  'to write is for restore: to a VM’s disk, and a new image; anywhere else for admins alone',
  async (t) => {
    const vm = { vmId: 'mine', disk: 'vda' };
    await defineVm(host, {
      name: 'waits',
      disks: [{ path: '/var/lib/libvirt/images/missing.raw', format: 'raw', target: 'vda' }],
    });
    const made = (name: string) => ({
      ...{ path: `/var/lib/libvirt/images/${name}.raw`, format: 'raw', access: 'read-write' },
      create: { capacity: MiB },
    });
    for (const [as, exportId, params, may] of [
      ['backup', 'w1', { ...vm, access: 'read-write' }, false],
      ['backup', 'w2', { ...vm, access: 'scratch' }, true],
      ['restore', 'w3', { ...vm, access: 'read-write' }, true],
      ['restore', 'w4', { vmId: 'others', disk: 'vda', access: 'read-write' }, false],
      ['backup', 'w5', made('w5'), false],
      ['restore', 'w6', made('w6'), true],
      ['restore', 'w10', made('missing'), false],
      ['restore', 'w7', { path: disks.loose, format: 'qcow2', access: 'read-write' }, false],
      ['admin', 'w8', { path: disks.loose, format: 'qcow2', access: 'read-write' }, true],
    ] as const) {
      const answer = await one(as, 'mountDisk', { exportId, ...params });
      t.equal(isRefused(answer), !may, `${exportId}: ${JSON.stringify(answer)}`);
      if (may) t.match((await one(as, 'unmountDisk', { exportId })).result, { exportId });
      else if (as === 'backup') t.match(answer.error?.message, /needs the role restore/);
    }
    const answer = await one('backup', 'prepareBackupDisk', { exportId: 'w9', ...vm, access: 'read-write' });
    t.ok(isRefused(answer), 'by either verb');
  },
);

t.test('the UNIX socket is admin, and an owner of its own', async (t) => {
  await prepare(daemon, { exportId: 'local', path: disks.mine as string, format: 'qcow2' });
  t.match((await verb(daemon, 'getExport', { exportId: 'local' })).owner, 'unix');
  t.ok(isRefused(await one('backup', 'teardownBackupDisk', { exportId: 'local' })));
  await verb(daemon, 'teardownBackupDisk', { exportId: 'local' });
});

t.test('roles and addresses that make no sense are refused at the start, by key', async (t) => {
  const file = join(host.dir, 'bad.toml');
  writeFileSync(
    file,
    '[rpc]\ntls = ["127.0.0.1:70000"]\n[[roles]]\nidentity = "CN=engine"\nrole = "backup"\n[[roles]]\nidentity = "dns:a"\nrole = "king"\n',
  );
  const check = () =>
    host.run('node', [join(process.cwd(), 'dist/daemon.js'), '--check-config', '--config', file]);
  t.match((await check()).stderr, /roles\.1\.role is "king"; allowed: "observer", "backup"/);
  writeFileSync(file, readFileSync(file, 'utf8').replace('king', 'backup'));
  const { stderr, exitCode } = await check();
  t.equal(exitCode, 2);
  t.match(stderr, /bad\.toml: rpc\.tls\.0 is "127\.0\.0\.1:70000"; allowed: a port from 1 to 65535/);
  t.match(stderr, /tls\.cert is ""; allowed: a PEM file/);
  t.match(stderr, /roles\.0\.identity is "CN=engine" and must be subject:, dns: or uri:/);
});
