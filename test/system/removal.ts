/** The way out: a stop leaves exports running, a removal is refused while there are any, and a purge leaves nothing. */
import type { ListExportsResult } from '../../agent/api/generated.js';
import { CAPACITY } from './flow.js';
import { forgetGuests } from './guests.js';
import { apt } from './install.js';
import { expect, type Step } from './steps.js';
import { changes, tracesOf } from './traces.js';
import { clearExports, ctl, isActive, type World } from './world.js';

const IMAGE = '/var/lib/libvirt/images/kept.raw';
const EXPORT = { exportId: 'kept', path: IMAGE, format: 'raw' };

export const removal: Step<World>[] = [
  {
    name: 'stop',
    needs: ['units'],
    async play(world) {
      const { machine } = world;
      await clearExports(world);
      await machine.must(['truncate', '-s', String(CAPACITY), IMAGE]);
      const { uri } = await ctl<{ uri: string }>(world, 'prepareBackupDisk', EXPORT);
      const since = await machine.must(['date', '+%s']);
      await machine.must(['systemctl', 'stop', 'vmdiskd.service'], { timeoutMs: 120_000 });
      expect(!(await isActive(world, 'vmdiskd.service')), 'it is still active');
      await machine.must(['nbdinfo', uri]);
      const log = await machine.must(['journalctl', '-o', 'cat', '-u', 'vmdiskd', `--since=@${since}`]);
      expect(/1 export, .*live on/.test(log), `the journal says nothing of exports: ${log}`);
      return 'the export goes on, and the journal says so';
    },
  },
  {
    name: 'removal is refused',
    needs: ['stop'],
    async play(world) {
      const refusal = await apt(world, 'remove', 'vmdiskd').then(
        () => '',
        (error: Error) => error.message,
      );
      expect(refusal !== '', 'it was removed');
      for (const word of ['kept', 'vmdiskctl ']) {
        expect(refusal.includes(word), `the refusal does not say "${word}": ${refusal}`);
      }
      const { exports } = await ctl<ListExportsResult>(world, 'listExports');
      expect(exports.length === 1, 'the export has gone');
      return 'with the id of the export, and the way to end it';
    },
  },
  {
    name: 'drain',
    needs: ['stop'],
    async play(world) {
      const said = await world.machine.must(['vmdiskctl', 'drain', '--wait'], { timeoutMs: 120_000 });
      const { exports } = await ctl<ListExportsResult>(world, 'listExports');
      expect(exports.length === 0, `exports after it: ${exports.map(({ exportId }) => exportId)}`);
      return said.split('\n')[0] ?? '';
    },
  },
  {
    name: 'removal and purge',
    needs: ['install'],
    async play(world) {
      const { machine, shop, appliance } = world;
      await clearExports(world);
      shop?.close();
      appliance?.close();
      await forgetGuests(machine, [...(shop ? ['shop'] : []), ...(appliance ? ['appliance'] : [])]);
      await apt(world, 'remove', 'vmdiskd');
      expect(!(await isActive(world, 'vmdiskd.socket')), 'its socket is still active');
      await machine.must(['test', '-e', '/etc/vmdiskd/vmdiskd.toml']);
      await apt(world, 'purge', 'vmdiskd');
      const left = changes(world.before, await tracesOf(machine));
      expect(left.length === 0, `other than before the package: ${left.slice(0, 20).join('; ')}`);
      return 'no file, account, unit or process is other than before';
    },
  },
];
