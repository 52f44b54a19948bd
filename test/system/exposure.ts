/** What systemd-analyze(1) security says of the units, on that systemd, with the limits that are promised. */
import { expect, type Step } from './steps.js';
import { ctl, type World } from './world.js';

const EXPORT_UNITS = 'vmdiskd-export-*.service';

/** @returns the figure, from 0 (closed) to 10 */
async function exposureOf({ machine }: World, unit: string): Promise<number> {
  const said = await machine.must(['systemd-analyze', 'security', '--no-pager', unit]);
  return Number(/Overall exposure level for \S+: ([\d.]+)/.exec(said)?.[1] ?? Number.NaN);
}

async function within(world: World, name: string, unit: string, limit: number): Promise<string> {
  const figure = await exposureOf(world, unit);
  world.figures.set(name, figure.toFixed(1));
  expect(figure <= limit, `${unit}: ${figure}, and not ${limit} at most`);
  return `${figure}, of ${limit} at most`;
}

export const exposure: Step<World>[] = [
  {
    name: 'exposure of the daemon',
    needs: ['units'],
    play: (world) => within(world, 'exposure of the daemon', 'vmdiskd.service', 2.0),
  },
  {
    name: 'exposure of the gateway',
    needs: ['gateway'],
    play: (world) => within(world, 'exposure of the gateway', 'vmdiskd-gateway.service', 0.8),
  },
  {
    name: 'exposure of an export',
    needs: ['units'],
    async play(world) {
      const { machine } = world;
      const image = '/var/lib/libvirt/images/exposed.raw';
      await machine.must(['truncate', '-s', '1M', image]);
      await ctl(world, 'prepareBackupDisk', { exportId: 'exposed', path: image, format: 'raw' });
      try {
        const list = ['systemctl', 'list-units', '--plain', '--no-legend', '--state=active', EXPORT_UNITS];
        const [unit] = (await machine.must(list)).split(/\s/);
        expect(unit !== undefined && unit !== '', `no unit ${EXPORT_UNITS} of a live export`);
        return await within(world, 'exposure of an export', unit, 1.0);
      } finally {
        await ctl(world, 'teardownBackupDisk', { exportId: 'exposed' });
      }
    },
  },
];
