/** The package comes into a Debian: by apt, with what it needs from that Debian alone. */
import type { GetHostInfoResult } from '../../agent/api/generated.js';
import { poll } from '../host/poll.js';
import { expect, type Step } from './steps.js';
import { ctl, daemonPid, isActive, type World } from './world.js';

const APT = ['apt-get', '-y', '-q', '-o', 'Dpkg::Use-Pty=0'];
const APT_MS = 180_000;

/** Installs one of the two packages; nothing else may come with it. */
export async function apt({ machine }: World, ...words: string[]): Promise<string> {
  return machine.must([...APT, ...words], { timeoutMs: APT_MS });
}

export const install: Step<World>[] = [
  {
    name: 'boot',
    async play({ machine }) {
      const failed = await machine.must(['systemctl', '--failed', '--plain', '--no-legend']);
      expect(failed === '', `before the package there are failed units: ${failed}`);
      const { stdout } = await machine.run(['systemctl', 'is-system-running']);
      return `systemd says ${stdout}`;
    },
  },
  {
    name: 'install',
    needs: ['boot'],
    async play(world) {
      const said = await apt(world, 'install', world.first.path);
      expect(/ 1 newly installed|NEW packages will be installed:\s+vmdiskd\n/.test(said), said);
      const state = await world.machine.must(['dpkg', '-s', 'vmdiskd']);
      expect(/^Status: install ok installed$/m.test(state), state);
      expect(state.includes(`\nVersion: ${world.first.version}\n`), state);
      return `apt install of ${world.first.version}`;
    },
  },
  {
    name: 'units',
    needs: ['install'],
    async play(world) {
      for (const unit of ['vmdiskd.socket', 'vmdiskd.service']) {
        expect(await isActive(world, unit), `${unit} is not active`);
      }
      const enabled = await world.machine.must(['systemctl', 'is-enabled', 'vmdiskd.service']);
      expect(enabled === 'enabled', `vmdiskd.service is ${enabled}`);
      const failed = await world.machine.must(['systemctl', '--failed', '--plain', '--no-legend']);
      expect(failed === '', `failed units: ${failed}`);
      const { stdout: running } = await world.machine.run(['systemctl', 'is-system-running']);
      expect(running === 'running', `systemd says ${running}`);
      let info = await ctl<GetHostInfoResult>(world, 'getHostInfo');
      // The daemon answers before it has asked libvirt, which systemd starts at that moment.
      await poll('the versions of libvirt and QEMU', 30_000, async () => {
        info = await ctl<GetHostInfoResult>(world, 'getHostInfo');
        return info.versions.libvirt !== null && info.versions.qemu !== null;
      });
      const { vmdiskd, node, libvirt, qemu } = info.versions;
      expect(info.capabilities.libvirt.connected, 'the daemon does not reach libvirt');
      expect(vmdiskd === world.first.version, `the daemon says that it is ${vmdiskd}`);
      const systemd = (await world.machine.sh('systemctl --version')).split('\n')[0]?.split(' ')[1];
      const versions = `systemd ${systemd}, libvirt ${libvirt}, QEMU ${qemu}, Node ${node}`;
      world.figures.set('versions', versions);
      return versions;
    },
  },
  {
    name: 'socket activation',
    needs: ['units'],
    async play(world) {
      const pid = await daemonPid(world);
      // With its socket, systemctl warns of what may start it again.
      await world.machine.must(['systemctl', 'stop', 'vmdiskd.service']);
      expect(!(await isActive(world, 'vmdiskd.service')), 'the service is still active');
      expect(await isActive(world, 'vmdiskd.socket'), 'the socket has gone with the service');
      const begun = Date.now();
      await ctl(world, 'listExports');
      const seconds = ((Date.now() - begun) / 1000).toFixed(1);
      expect((await daemonPid(world)) !== pid, 'the daemon is the same');
      return `stopped, and started by the next call, which took ${seconds} s`;
    },
  },
];
