/** A daemon that answers no more: systemd notices, and starts another. */
import type { ListExportsResult } from '../../agent/api/generated.js';
import { CAPACITY } from './flow.js';
import { expect, type Step } from './steps.js';
import { clearExports, ctl, daemonPid, unitProperty, type World, waitForAnother } from './world.js';

const IMAGE = '/var/lib/libvirt/images/watched.raw';
/** Shorter than the unit's, for the test not to wait for a minute. */
const SECONDS = 10;
const DROP_IN = '/etc/systemd/system/vmdiskd.service.d/20-watchdog.conf';

export const watchdog: Step<World>[] = [
  {
    name: 'watchdog',
    needs: ['units'],
    async play(world) {
      const { machine } = world;
      await clearExports(world);
      await machine.sh(`mkdir -p ${DROP_IN.replace(/[^/]*$/, '')}
        printf '[Service]\\nWatchdogSec=${SECONDS}\\n' >${DROP_IN}
        systemctl daemon-reload; systemctl restart vmdiskd.service; truncate -s ${CAPACITY} ${IMAGE}`);
      try {
        const made = { exportId: 'watched', path: IMAGE, format: 'raw' };
        const { uri } = await ctl<{ uri: string }>(world, 'prepareBackupDisk', made);
        const pid = await daemonPid(world);
        // Well, it lives by its own answers.
        await machine.sh(`sleep ${SECONDS * 1.5}`);
        expect((await daemonPid(world)) === pid, 'it was restarted while it was well');
        await machine.must(['kill', '-STOP', String(pid)]);
        const seconds = await waitForAnother(world, pid, (SECONDS + 60) * 1000);
        const log = await machine.must(['journalctl', '-o', 'cat', '-u', 'vmdiskd.service', '-n', '200']);
        expect(/Watchdog timeout \(limit 10s\)/.test(log), 'the journal tells of no watchdog');
        const { exports } = await ctl<ListExportsResult>(world, 'listExports');
        const states = exports.map(({ exportId, state }) => `${exportId} ${state}`).join(', ');
        expect(states === 'watched ready', `exports: ${states || 'none'}`);
        await machine.must(['nbdinfo', uri]);
        await ctl(world, 'teardownBackupDisk', { exportId: 'watched' });
        return `limit ${SECONDS} s: another daemon ${seconds.toFixed(0)} s after kill -STOP, with its export`;
      } finally {
        await machine.sh(`rm -rf ${DROP_IN.replace(/\/[^/]*$/, '')}; systemctl daemon-reload`);
        await machine.must(['systemctl', 'restart', 'vmdiskd.service'], { timeoutMs: 120_000 });
        const limit = await unitProperty(world, 'vmdiskd.service', 'WatchdogUSec');
        expect(limit === '1min', `the unit's own limit is ${limit}`);
      }
    },
  },
];
