/** What QEMU's profile gets from the package, by the parser of that Debian. Its kernel need not have AppArmor. */
import { expect, type Step } from './steps.js';
import type { World } from './world.js';

const ABSTRACTION = '/etc/apparmor.d/abstractions/libvirt-qemu';
/** As libvirt writes one for each VM. */
const PROFILE =
  '#include <tunables/global>\nprofile libvirt-test flags=(attach_disconnected) {\n  #include <abstractions/libvirt-qemu>\n}\n';
const parse = ['apparmor_parser', '--skip-kernel-load', '--skip-cache'];

export const apparmor: Step<World>[] = [
  {
    name: "AppArmor's snippet",
    needs: ['install'],
    async play({ machine, release }) {
      const { stdout: byDirectory } = await machine.run([
        'grep',
        '-c',
        '<abstractions/libvirt-qemu.d>',
        ABSTRACTION,
      ]);
      const { stdout: local } = await machine.run(['cat', `/etc/apparmor.d/local/abstractions/libvirt-qemu`]);
      const byLine = /^include if exists <abstractions\/libvirt-qemu\.d\/vmdiskd>$/m.test(local);
      const directory = Number(byDirectory) > 0;
      // Once, and not twice.
      expect(directory !== byLine, `by the directory: ${directory}; by a local line: ${byLine}`);
      expect(directory === (release === 'trixie'), `${release} reads the directory: ${directory}`);
      const full = await machine.must([...parse, '--preprocess'], { input: PROFILE });
      expect(full.includes('/run/vmdiskd/{exports,backups}/*/nbd.sock rw,'), 'the profile lacks the snippet');
      await machine.must([...parse, '--skip-read-cache'], { input: PROFILE });
      return directory ? 'read from the directory of snippets' : 'included by a local line';
    },
  },
];
