// The README and the pages under docs/: what they name exists, and the README's commands do what it says. Needs root.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { HotplugDiskResult, MountDiskResult, PrepareBackupDiskResult } from '../agent/api/generated.js';
import { verbSchemas } from '../agent/api/schemas.js';
import { type ErrorName, errorRegistry } from '../agent/errors.js';
import { startHost } from './host/host.js';
import { poll } from './host/poll.js';

t.setTimeout(600_000);

const root = fileURLToPath(new URL('..', import.meta.url));
const NOT_YET = 'What does not work yet';

const read = (file: string): string => readFileSync(join(root, file), 'utf8');
const filesUnder = (folder: string, ending: string): string[] =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .map((name) => `${folder}/${name}`)
    .filter((name) => name.endsWith(ending));

const pages = ['README.md', ...filesUnder('docs', '.md')];
/** Written by people; the reference is generated, and checked where that is. */
const written = pages.filter((page) => page !== 'docs/reference.md');

/** The text from a heading to the next one of its level or above. */
function section(page: string, heading: string): string {
  const lines = page.split('\n');
  const start = lines.findIndex((line) => line.replace(/^#+ /, '') === heading);
  if (start === -1) throw new Error(`There is no heading "${heading}"`);
  const level = lines[start]?.indexOf(' ') ?? 0;
  const length = lines.slice(start + 1).findIndex((line) => /^#+ /.test(line) && line.indexOf(' ') <= level);
  return lines.slice(start, length === -1 ? undefined : start + 1 + length).join('\n');
}

/** The contents of the code blocks of a language, in order. */
function blocks(page: string, language: string): string[] {
  return [...page.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, 'gms'))].map(
    ([, text]) => text ?? '',
  );
}

/** What stands in backticks in the running text. */
function quoted(page: string): string[] {
  const prose = page.replace(/^```.*?^```$/gms, '');
  return [...prose.matchAll(/`([^`\n]+)`/g)].map(([, text]) => text ?? '');
}

/** GitHub's anchor of a heading. */
const anchor = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}_ -]/gu, '')
    .replaceAll(' ', '-');

t.test(
  'links lead to files and headings that exist, and so do paths and npm scripts that are named',
  async (t) => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    for (const page of pages) {
      for (const [, target = ''] of read(page).matchAll(/\]\(([^)]+)\)/g)) {
        if (/^https?:/.test(target)) continue;
        const [path = '', fragment] = target.split('#');
        const file = path === '' ? page : join(dirname(page), path);
        t.ok(existsSync(join(root, file)), `${page}: ${target}`);
        if (fragment === undefined || !file.endsWith('.md')) continue;
        const headings = [...read(file).matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) => anchor(heading));
        t.ok(headings.includes(fragment), `${page}: the heading of ${target}`);
      }
    }
    for (const page of written) {
      for (const name of quoted(read(page))) {
        if (/^(agent|test|docs|rpc-schema)\/[\w./-]*$/.test(name) && !name.includes('NAME')) {
          t.ok(existsSync(join(root, name)), `${page}: ${name}`);
        }
      }
      for (const [, script = ''] of read(page).matchAll(/npm run (?:-s )?([\w:]+)/g)) {
        t.ok(Object.hasOwn(scripts, script), `${page}: npm run ${script}`);
      }
    }
  },
);

t.test(
  'verbs, errors and members that are named are those of the schemas; what is not there yet is not',
  async (t) => {
    const readme = read('README.md');
    const missing = section(readme, NOT_YET);
    for (const [, verb = ''] of readme.matchAll(/^(?:virsh.*)?rpc (\w+)/gm)) {
      t.ok(Object.hasOwn(verbSchemas, verb), `rpc ${verb}`);
    }
    const later = quoted(missing).filter((name) => /^[a-z]\w+$/.test(name));
    t.ok(missing.length > 0, 'there is a section on what does not work yet');
    for (const name of later) t.notOk(Object.hasOwn(verbSchemas, name), `${name} is not there yet`);

    const schemas = [...filesUnder('rpc-schema', '.json'), 'agent/errors.ts'].map(read).join('\n');
    const sources = ['agent', 'test', 'rpc-schema'].flatMap((folder) => filesUnder(folder, '.ts')).map(read);
    const knownTo = { 'README.md': schemas, other: [schemas, ...sources].join('\n') };
    for (const page of written) {
      const known = page === 'README.md' ? knownTo['README.md'] : knownTo.other;
      const text = page === 'README.md' ? readme.replace(missing, '') : read(page);
      // camelCase and PascalCase: names of ours, unless a page about other software quotes it.
      for (const name of quoted(text).filter((quote) => /^[A-Za-z]+[a-z][A-Z]\w*$/.test(quote))) {
        if (page.startsWith('docs/decisions/')) continue;
        t.match(known, new RegExp(`\\b${name}\\b`), `${page}: ${name}`);
      }
    }
    for (const block of blocks(section(readme, 'Errors'), 'json')) {
      const { code, data } = JSON.parse(block) as {
        code: number;
        data: { name: ErrorName; retryable: boolean };
      };
      t.match(errorRegistry[data.name], { code, retryable: data.retryable });
    }
  },
);

t.test('the commands of "By hand", from the first to the last', async (t) => {
  const byHand = section(read('README.md'), 'By hand');
  const [install, ...commands] = blocks(byHand, 'sh');
  t.equal(install, 'npm ci && npm run build\n', 'set-up has done that');
  const scratch = mkdtempSync('/tmp/vmd-docs-');
  t.teardown(() => rmSync(scratch, { recursive: true, force: true }));
  const host = await startHost(t);
  const vda = await host.createImage({ name: 'web1.qcow2', format: 'qcow2', size: 32 << 20 });
  const vdb = await host.createImage({ name: 'web1-data.raw', format: 'raw', size: 8 << 20 });
  const [web1, appliance] = await Promise.all([
    host.startGuest({
      name: 'web1',
      disks: [
        { target: 'vda', path: vda, format: 'qcow2' },
        { target: 'vdb', path: vdb, format: 'raw' },
      ],
    }),
    host.startGuest({ name: 'appliance', scsiController: true }),
  ]);
  await web1.sh('write-random /dev/vda 1048576 3145728 one && write-random /dev/vda 16777216 65536 two');
  await web1.sh('mkfs.ext4 -q -O has_journal -J size=1 /dev/vdb && mkdir -p /srv && mount /dev/vdb /srv');
  await web1.sh('echo NAME=web1 >/srv/os-release && sync && echo late >/srv/late');

  // In the reader's VMs something is done between some of the commands; the script waits there for ours.
  const pauses: [name: string, before: string][] = [
    ['monday', '"exportId": "tue"'],
    ['plugged', 'getExport \'{"exportId": "scan"}'],
    ['lost', 'virsh destroy web1'],
  ];
  for (const [name, before] of pauses) {
    const at = commands.findIndex((block) => block.includes(before));
    if (at === -1) throw new Error(`No command has ${before}`);
    commands.splice(at, 0, `touch /tmp/${name}; until [ -e /tmp/${name}-over ]; do sleep 0.1; done\n`);
  }
  const script = `cd '${root}'\n${commands.join('').replaceAll('/tmp/', `${scratch}/`)}wait\n`;
  const PATH = `${dirname(process.execPath)}:/usr/sbin:/usr/bin:/sbin:/bin`;
  const running = host.run('bash', ['--norc', '-euo', 'pipefail', '-c', script], {
    env: { PATH },
    timeoutMs: 300_000,
  });
  let over = false;
  void running.then(() => {
    over = true;
  });
  const meanwhile = async (name: string, work: () => Promise<unknown>): Promise<void> => {
    await poll(`the commands before "${name}"`, 240_000, () => over || existsSync(join(scratch, name)));
    if (over) return;
    await work();
    writeFileSync(join(scratch, `${name}-over`), '');
  };
  await meanwhile('monday', () =>
    web1.sh('write-random /dev/vda 2097152 65536 three && discard-range /dev/vda 16777216 65536'),
  );
  await meanwhile('plugged', async () => {
    const { guestPath } = JSON.parse(
      readFileSync(join(scratch, 'plugged.json'), 'utf8'),
    ) as HotplugDiskResult;
    await appliance.sh(
      `until [ -e ${guestPath} ]; do sleep 0.1; done; mkdir -p /mnt; mount ${guestPath} /mnt`,
    );
    t.equal(await appliance.sh('cat /mnt/os-release; echo found >/mnt/report; umount /mnt'), 'NAME=web1');
  });
  await meanwhile('lost', () => web1.sh('write-random /dev/vda 0 8388608 lost'));
  const shell = await running;
  t.equal(shell.exitCode, 0, `${shell.stderr}\n${shell.stdout}`);
  t.equal(shell.stderr, '', 'without a complaint');
  const said = shell.stdout.split('\n');
  const answers = said.map(parsed).filter((value) => value !== undefined);
  t.match(shell.stdout, /The configuration is in order/);
  t.match(shell.stdout, /^ +1048576 +3145728 +0 +data$/m, 'nbdinfo shows what was written');
  t.match(shell.stdout, /^ +2097152 +65536 +1 +dirty$/m, 'and then what was changed');
  t.match(shell.stdout, /^ +16777216 +65536 +1 +dirty$/m);
  t.equal(
    said.filter((line) => line === 'Images are identical.').length,
    2,
    'the copy is right, and patched it is',
  );
  const ofKey = (name: string, value: unknown): Record<string, unknown>[] =>
    answers.filter((answer) => answer[name] === value);
  t.match(ofKey('exportId', 'mon').at(-1), { checkpoint: { id: 'monday', state: 'kept' } });
  t.match(ofKey('backupId', 'wed'), [
    { checkpoint: 'wednesday', disks: [{ mode: 'incremental' }, { mode: 'full', tracked: false }] },
    { checkpoint: { id: 'wednesday', state: 'kept' } },
  ]);
  t.match(ofKey('exportId', 'wed-vdb')[0], { cbt: { mode: 'full' } });
  t.match(
    ofKey('exportId', 'scan').find((answer) => Object.hasOwn(answer, 'scratch')),
    { access: 'scratch', scratch: { limit: 10 * 2 ** 30 } },
  );
  t.ok(said.includes('NAME=web1'), 'the file shows what the guest wrote');
  t.match(shell.stdout, /check\/disk: recovering journal/);
  t.match(ofKey('exportId', 'thu')[0], { cbt: { mode: 'incremental', changedBytes: 0 } });
  t.match(ofKey('kind', 'deleteSnapshot').at(-1), { state: 'done' });
  t.match(readFileSync(join(scratch, 'web1.json'), 'utf8'), /<name>web1<\/name>/);
  const lists = answers.filter((answer) => Object.hasOwn(answer, 'checkpoints'));
  t.match(lists, [
    { checkpoints: ['monday', 'tuesday', 'wednesday'].map((checkpoint) => ({ checkpoint, state: 'good' })) },
  ]);
  t.strictSame(answers.at(-1), { exports: [] });
  t.strictSame(await host.leftovers(), []);
  t.equal((await host.virsh('checkpoint-list', 'web1', '--name')).trim(), 'wednesday');
  t.equal((await host.virsh('snapshot-list', 'web1', '--name')).trim(), '');
  const copy = join(scratch, 'web1-vda.raw');
  const made = '/var/lib/libvirt/images/web1-tuesday.qcow2';
  t.match(await host.must('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', copy, made]), /identical/);
  await web1.attach();
  t.match(await host.must('sha256sum', [copy]), await web1.sha256('/dev/vda'), 'the VM has its disk back');

  const [exported = '', plugged = '', ...mounted] = blocks(byHand, 'json');
  const real = JSON.parse(readFileSync(join(scratch, 'mon.json'), 'utf8')) as PrepareBackupDiskResult;
  const shown = JSON.parse(exported.replace(/,\n *\.\.\.\n/, '\n')) as PrepareBackupDiskResult;
  const ofTheRun = { drive: { ...shown.drive, serial: real.drive.serial } };
  const extents = real.cbt.extents.slice(0, shown.cbt.extents.length);
  t.strictSame(
    { ...shown, ...ofTheRun },
    { ...real, cbt: { ...real.cbt, extents } },
    'the answer is as shown',
  );
  const answer = answers.find((value) => Object.hasOwn(value, 'guestPath'));
  t.strictSame(
    Object.keys(answer ?? {}).sort(),
    Object.keys(JSON.parse(plugged)).sort(),
    'and that of hotplugDisk',
  );
  t.equal(mounted.length, 2);
  for (const block of mounted) {
    const shown = JSON.parse(block) as MountDiskResult;
    const real = ofKey('exportId', shown.exportId)[0] as MountDiskResult | undefined;
    const { serial = '' } = real?.drive ?? {};
    t.strictSame(
      { ...shown, drive: { ...shown.drive, serial } },
      real,
      `and of mountDisk "${shown.exportId}"`,
    );
  }
});

function parsed(line: string): Record<string, unknown> | undefined {
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}
