/** An export's unit from within: what a server that an image has taken over could do, and what its unit is to systemd. */
import { fileURLToPath } from 'node:url';
import { expect, type Step } from './steps.js';
import { ctl, unitProperty, type World } from './world.js';

const SCRIPT = fileURLToPath(new URL('taken-over.sh', import.meta.url));
/** A file system that has handles of files, which an overlay has not. */
const POOL = '/var/lib/libvirt/images/pool';
/** With what systemd's own lists of paths are taken apart at. */
const IMAGE = `${POOL}/Bob's disk: 100%.raw`;
const EXPORT = { exportId: 'taken', path: IMAGE, format: 'raw' };
const UNIT = 'vmdiskd-export-taken.service';
const DROP_INS = '/etc/systemd/system/vmdiskd-export-.service.d';
const LEFT = ['read its image'];

function attempts(said: string): { could: string[]; couldNot: string[] } {
  const of = (word: string) =>
    [...said.matchAll(new RegExp(`^${word}: (.*)$`, 'gm'))].map(([, what]) => what ?? '');
  return { could: of('could'), couldNot: of('could not') };
}

export const sandbox: Step<World>[] = [
  {
    name: 'sandbox of an export',
    needs: ['units'],
    async play(world) {
      const { machine } = world;
      machine.put(SCRIPT, '/root/taken-over.sh');
      await machine.sh(`mkdir ${POOL}; mount -t tmpfs tmpfs ${POOL}`);
      await machine.must(['truncate', '-s', '1M', IMAGE]);
      // A process of the account that images are opened by, for what one export could do to another.
      await machine.sh(`cp -p /usr/bin/qemu-nbd /usr/bin/qemu-nbd.real
        systemd-run --quiet --unit=stranger -p User=vmdiskd-nbd sleep 600
        echo "stranger=$(systemctl show --value -p MainPID stranger)" >/usr/lib/vmdiskd-taken-over
        chmod 755 /root/taken-over.sh; mount --bind /root/taken-over.sh /usr/bin/qemu-nbd
        mkdir -p ${DROP_INS}; printf '[Service]\\nTasksMax=77\\n' >${DROP_INS}/limits.conf; systemctl daemon-reload`);
      try {
        const outside = await machine.run(['/usr/bin/qemu-nbd', '--outside', IMAGE]);
        const whole = attempts(outside.stderr);
        expect(whole.couldNot.length === 0, `root outside could not ${whole.couldNot.join(', ')}`);
        const { uri } = await ctl<{ uri: string }>(world, 'prepareBackupDisk', EXPORT);
        const said = await machine.must(['cat', '/run/vmdiskd/exports/taken/qemu-nbd.log']);
        const { could, couldNot } = attempts(said);
        expect(could.join() === LEFT.join(), `it could ${could.join(', ')}`);
        expect(couldNot.length === whole.could.length - LEFT.length, `it tried ${couldNot.length} things`);
        await machine.must(['nbdinfo', uri]);
        const user = await unitProperty(world, UNIT, 'DynamicUser');
        const slice = await unitProperty(world, UNIT, 'Slice');
        const memory = Number(await unitProperty(world, UNIT, 'MemoryMax'));
        expect(user === 'yes' && slice === 'vmdiskd.slice' && memory > 0, `${user}, ${slice}, ${memory}`);
        const tasks = await unitProperty(world, UNIT, 'TasksMax');
        expect(tasks === '77', `an administrator's drop-in is not in force: TasksMax=${tasks}`);
        await ctl(world, 'teardownBackupDisk', { exportId: 'taken' });
        const state = await unitProperty(world, UNIT, 'LoadState');
        expect(state === 'not-found', `after it the unit is ${state}`);
        return `of ${whole.could.length} things it could ${could.join(', ')}`;
      } finally {
        await machine.run(['umount', '/usr/bin/qemu-nbd', POOL]);
        await machine.sh(`systemctl stop stranger; rm -rf ${DROP_INS} ${POOL} /usr/bin/qemu-nbd.real /usr/lib/vmdiskd-taken-over \\
          /usr/lib/vmdiskd-written /root/taken-over.sh; systemctl daemon-reload`);
      }
    },
  },
];
