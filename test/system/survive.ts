/** The daemon goes and comes, in each way there is, while others read: no reader may notice. */
import type { ListExportsResult, PrepareBackupDiskResult } from '../../agent/api/generated.js';
import { CAPACITY, guestsOf, MIB } from './flow.js';
import { apt } from './install.js';
import { expectReading, finishReaders, type Reader, startReader } from './readers.js';
import { expect, type Step } from './steps.js';
import { clearExports, ctl, daemonPid, isActive, unitProperty, type World, waitForAnother } from './world.js';

/** Inside: an image of no VM. */
const IMAGE = '/var/lib/libvirt/images/still.raw';
const IDS = ['live', 'still', 'net'];
const readers: Reader[] = [];

/** All three are there, and nothing has happened to them. */
async function expectExports(world: World): Promise<void> {
  const { exports } = await ctl<ListExportsResult>(world, 'listExports');
  const states = exports.map(({ exportId, state }) => `${exportId} ${state}`).sort();
  expect(
    states.join() ===
      [...IDS]
        .sort()
        .map((id) => `${id} ready`)
        .join(),
    `exports: ${states.join(', ')}`,
  );
}

async function stillReading(world: World): Promise<void> {
  await expectExports(world);
  await expectReading(world, readers);
}

export const survive: Step<World>[] = [
  {
    name: 'gateway',
    needs: ['units'],
    async play(world) {
      const { machine } = world;
      await machine.sh(`echo '[gateway]
        listen = ["127.0.0.1:10809"]' >/etc/vmdiskd/conf.d/system-test.toml; vmdiskd --check-config
        systemctl daemon-reload; systemctl restart vmdiskd.socket vmdiskd.service vmdiskd-gateway.socket`);
      expect(await isActive(world, 'vmdiskd-gateway.socket'), 'its socket is not active');
      await ctl(world, 'listExports');
      return 'listens on loopback, by a line of configuration and a reload';
    },
  },
  {
    name: 'readers',
    needs: ['gateway', 'guests'],
    async play(world) {
      const { machine } = world;
      await machine.sh(`head -c ${CAPACITY} /dev/urandom >${IMAGE}; chown libvirt-qemu: ${IMAGE}`);
      const still = (await machine.must(['sha256sum', IMAGE])).slice(0, 64);
      const live = await guestsOf(world).shop.sha256('/dev/vda');
      const image = { path: IMAGE, format: 'raw' };
      const transport = { type: 'tcp', tls: 'psk' };
      const exports = [
        { reader: { name: 'live', wanted: live }, params: { vmId: 'shop', disk: 'vda' } },
        { reader: { name: 'still', wanted: still }, params: image },
        { reader: { name: 'net', wanted: still }, params: { ...image, transport } },
      ];
      await clearExports(world);
      readers.length = 0;
      for (const { reader, params } of exports) {
        const named = { exportId: reader.name, ...params };
        const made = await ctl<PrepareBackupDiskResult>(world, 'prepareBackupDisk', named);
        await startReader(world, reader, made);
        readers.push(reader);
      }
      await guestsOf(world).shop.sh(`write-random /dev/vda ${20 * MIB} ${MIB} later`);
      await stillReading(world);
      return 'QEMU and qemu-nbd by UNIX sockets, and qemu-nbd through the gateway with TLS';
    },
  },
  {
    name: 'restart',
    needs: ['readers'],
    async play(world) {
      const pid = await daemonPid(world);
      const begun = Date.now();
      await world.machine.must(['systemctl', 'restart', 'vmdiskd.service']);
      const seconds = ((Date.now() - begun) / 1000).toFixed(1);
      expect((await daemonPid(world)) !== pid, 'the daemon is the same');
      await stillReading(world);
      return `ready again after ${seconds} s, and all three read on`;
    },
  },
  {
    name: 'kill -9',
    needs: ['readers'],
    async play(world) {
      const pid = await daemonPid(world);
      await world.machine.must(['kill', '-KILL', String(pid)]);
      const seconds = await waitForAnother(world, pid, 60_000);
      await stillReading(world);
      return `ready again after ${seconds.toFixed(1)} s, and all three read on`;
    },
  },
  {
    name: 'upgrade',
    needs: ['readers'],
    async play(world) {
      const pid = await daemonPid(world);
      const gateway = await unitProperty(world, 'vmdiskd-gateway.service', 'MainPID');
      await apt(world, 'install', world.second.path);
      expect((await daemonPid(world)) !== pid, 'the daemon is the same');
      const after = await unitProperty(world, 'vmdiskd-gateway.service', 'MainPID');
      expect(gateway === after && gateway !== '0', `the gateway was ${gateway} and is ${after}`);
      const state = await world.machine.must(['dpkg', '-s', 'vmdiskd']);
      expect(/^Status: install ok installed$/m.test(state), state);
      expect(state.includes(`\nVersion: ${world.second.version}\n`), state);
      await stillReading(world);
      return `from ${world.first.version} to ${world.second.version}, and all three read on`;
    },
  },
  {
    name: 'readers end',
    needs: ['readers'],
    async play(world) {
      await finishReaders(world, readers);
      for (const exportId of IDS) await ctl(world, 'teardownBackupDisk', { exportId });
      return `${readers.length} times ${CAPACITY / MIB} MiB, each as it was at its instant`;
    },
  },
];
