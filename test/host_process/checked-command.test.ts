/** The shell before a program in its unit, which compares what systemd has bound with what was checked. */
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import t from 'tap';
import { checkedCommand } from '../../agent/host/checked-command.js';
import { systemdRunArguments } from '../../agent/host/unit-properties.js';

const dir = mkdtempSync('/tmp/vmd-checked-');
t.teardown(() => rmSync(dir, { recursive: true, force: true }));

/** Runs it with the view's files at other places, since /images is the unit's alone. */
function run(command: readonly string[], ...places: string[]) {
  const [program = '', ...args] = command.map((word) => {
    const index = /^\/images\/(\d+)$/.exec(word)?.[1];
    return index === undefined ? word : (places[Number(index)] ?? '');
  });
  return execa(program, args, { reject: false });
}

function fileNamed(name: string): { path: string; id: string } {
  const path = join(dir, name);
  writeFileSync(path, name);
  const { dev, ino } = statSync(path, { bigint: true });
  return { path, id: `${dev}:${ino}` };
}

t.test('the program runs, with its arguments as they are, when all files are those', async (t) => {
  const files = [fileNamed('one'), fileNamed("Bob's $HOME: 100%")];
  const command = checkedCommand(files, '/usr/bin/printf', ['%s|', 'a b', '$HOME', '--', '']);
  const ran = await run(command, ...files.map(({ path }) => path));
  t.match(ran, { exitCode: 0, stdout: 'a b|$HOME|--||' });
});

t.test('it does not where one is another, or has gone', async (t) => {
  const [one, two] = [fileNamed('one'), fileNamed('two')];
  const command = checkedCommand([one, two], '/usr/bin/touch', [join(dir, 'ran')]);
  for (const places of [
    [one.path, one.path],
    [one.path, join(dir, 'none')],
  ]) {
    const { exitCode, stderr } = await run(command, ...places);
    t.equal(exitCode, 1);
    t.match(stderr, `${two.path} is no longer the file that was checked`);
  }
  t.throws(() => statSync(join(dir, 'ran')));
});

t.test('a limit of size is an error of the write, and no signal', async (t) => {
  const [one] = [fileNamed('one')];
  const write = `dd if=/dev/zero of=${dir}/big bs=1k count=9`;
  const command = checkedCommand([one], '/bin/sh', ['-c', `ulimit -f 1; ${write}; echo ended with $?`]);
  t.match((await run(command, one.path)).stdout, 'ended with 1');
});

t.test('systemd is not to put variables in', async (t) => {
  const args = systemdRunArguments({ name: 'x', properties: ['A=b'], options: [] }, [
    '/p',
    '$HOME',
    'a$$b',
    `${'$'}{X}`,
  ]);
  t.strictSame(args.slice(args.indexOf('--') + 1), ['/p', '$$HOME', 'a$$$$b', `${'$$'}{X}`]);
  t.ok(args.includes('--unit=x.service') && args.includes('--property=A=b'));
});
