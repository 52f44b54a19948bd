/** A mistake in the configuration of a host at work: what it must not take away, and how it is mended. */
import { expect, type Step } from './steps.js';
import { isActive, type World } from './world.js';

const FILE = '/etc/vmdiskd/conf.d/90-mistake.toml';
const AGAIN = 'systemctl daemon-reload; systemctl restart vmdiskd.service';

export const mistake: Step<World>[] = [
  {
    name: 'a mistake in the configuration',
    needs: ['units'],
    async play(world) {
      const { machine } = world;
      // It reads the same configuration to find the daemon, unless it is told.
      const ask = ['vmdiskctl', '--host', '/run/vmdiskd/vmdiskd.sock', '--retry', '60', 'get-host-info'];
      const answers = async () => (await machine.run(ask, { timeoutMs: 100_000 })).exitCode === 0;
      try {
        await machine.sh(`printf '[metrics]\\nlisten = "/run/vmdiskd/metrics.sock"\\n' >${FILE}; ${AGAIN}`);
        expect(await isActive(world, 'vmdiskd-metrics.socket'), 'a new socket is not there');
        await machine.sh(`echo 'no = "such key"' >>${FILE}; systemctl daemon-reload`);
        expect(await isActive(world, 'vmdiskd-metrics.socket'), 'the mistake has taken a socket away');
        expect(await answers(), 'the daemon that runs answers no more');
        const restart = await machine.run(['systemctl', 'restart', 'vmdiskd.service']);
        expect(restart.exitCode !== 0, 'it was started with the mistake');
        const log = await machine.must(['journalctl', '-o', 'cat', '-u', 'vmdiskd.service', '-n', '20']);
        expect(/90-mistake\.toml/.test(log), `the journal does not name it: ${log}`);
        await machine.sh(`printf '[metrics]\\nlisten = "/run/vmdiskd/metrics.sock"\\n' >${FILE}; ${AGAIN}`);
        expect(await answers(), 'mended, and no answer');
        return 'the sockets stayed; the journal named it; mended by a reload and a restart';
      } finally {
        await machine.sh(`rm -f ${FILE}; systemctl stop vmdiskd-metrics.socket; ${AGAIN}`);
      }
    },
  },
];
