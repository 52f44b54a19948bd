/** What vmdiskctl makes of the schemas: subcommands, options, values, columns, help, completion. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import t from 'tap';
import { membersOf } from '../../agent/api/describe.js';
import { memberOf, resolve } from '../../agent/api/resolve.js';
import type { JsonSchema, VerbSchema } from '../../agent/api/schema.js';
import { verbSchemas } from '../../agent/api/schemas.js';
import { bashCompletion } from '../../agent/cli/completion.js';
import { failureText, RpcFailure, statusOf } from '../../agent/cli/failure.js';
import { kebab } from '../../agent/cli/names.js';
import { type Ask, createProgram } from '../../agent/cli/program.js';
import { compact, show } from '../../agent/cli/show.js';
import { BadValue, readValue } from '../../agent/cli/value.js';

const verbs = Object.values<VerbSchema>(verbSchemas);
const dir = mkdtempSync('/tmp/vmd-cli-');
t.teardown(() => rmSync(dir, { recursive: true, force: true }));

/** What the program makes of a command line. */
async function asked(...args: string[]): Promise<Ask> {
  let ask: Ask | undefined;
  const program = createProgram(async (what) => {
    ask = what;
  });
  for (const command of [program, ...program.commands]) {
    command.exitOverride().configureOutput({ writeErr: () => {}, writeOut: () => {} });
  }
  await program.parseAsync(args, { from: 'user' });
  if (ask === undefined) throw new Error('nothing was asked for');
  return ask;
}

t.test(
  'each verb is a subcommand, each param an option of it, and none of them is one of the program',
  async (t) => {
    const program = createProgram(async () => {});
    const globals = program.options.map(({ long }) => long);
    for (const verb of verbs) {
      const command = program.commands.find((one) => one.name() === kebab(verb.name));
      if (command === undefined) return t.fail(`${verb.name} is no subcommand`);
      const options = command.options.map(({ long }) => String(long));
      for (const param of Object.keys(verb.params.properties)) {
        const option = command.options.find(
          ({ long }) => long?.replace('--no-', '--') === `--${kebab(param)}`,
        );
        t.ok(option, `${verb.name} ${param}`);
        t.equal(option?.mandatory, (verb.params.required ?? []).includes(param));
      }
      t.equal(new Set(options).size, options.length, 'each once');
      t.strictSame(
        options.filter((one) => globals.includes(one)),
        [],
      );
    }
    const own = program.commands.map((command) => command.name());
    t.strictSame(own, [...verbs.map(({ name }) => kebab(name)), 'completion']);
  },
);

t.test('the columns of a table are members of its rows', async (t) => {
  for (const verb of verbs) {
    const isList = verb.name.startsWith('list');
    t.equal(verb.columns !== undefined, isList, `${verb.name} has columns if it lists`);
    if (!isList) continue;
    const [list] = Object.values(membersOf(verb.result));
    for (const path of verb.columns ?? []) {
      let schema: JsonSchema | undefined = resolve(list ?? {}).items as JsonSchema;
      for (const name of path.split('.')) {
        const whole: JsonSchema = resolve(schema ?? {});
        schema = memberOf(whole.type === 'array' ? (whole.items as JsonSchema) : whole, name);
      }
      t.ok(schema, `${verb.name}: ${path}`);
    }
  }
});

t.test('params as they are typed', async (t) => {
  const { verb, params, options } = await asked(
    ...[
      '--host',
      '/run/x.sock',
      'prepare-backup-disk',
      '--export-id',
      'e1',
      '--vm-id',
      '42',
      '--disk',
      'vda',
    ],
    ...[
      '--since',
      'checkpoint=monday',
      '--transport',
      'type=tcp,tls=x509,clients=dns:a.example,clients=dns:b.example',
    ],
    ...['--inline-extents', '0', '--json'],
  );
  t.equal(verb, 'prepareBackupDisk');
  t.strictSame(params, {
    exportId: 'e1',
    vmId: '42',
    disk: 'vda',
    since: { checkpoint: 'monday' },
    transport: { type: 'tcp', tls: 'x509', clients: ['dns:a.example', 'dns:b.example'] },
    inlineExtents: 0,
  });
  t.match(options, { host: '/run/x.sock', json: true });
  const backup = ['start-backup', '--backup-id', 'b', '--vm-id', 'v'];
  const disks = [{ disk: 'vda', since: { checkpoint: 'm' } }, { disk: 'vdb' }];
  const typed = ['--disks', 'disk=vda,since.checkpoint=m', 'disk=vdb'];
  t.strictSame((await asked(...backup, ...typed)).params.disks, disks);
  t.strictSame((await asked(...backup, '--disks', JSON.stringify(disks))).params.disks, disks);
  const each = disks.flatMap((disk) => ['--disks', JSON.stringify(disk)]);
  t.strictSame((await asked(...backup, ...each)).params.disks, disks);
  t.strictSame(
    (await asked('create-snapshot', '--snapshot-id', 's', '--vm-id', 'v', '--disks', 'a', 'b')).params,
    {
      snapshotId: 's',
      vmId: 'v',
      disks: ['a', 'b'],
    },
  );
  t.strictSame((await asked('teardown-backup-disk', '--export-id', 'e', '--force')).params, {
    exportId: 'e',
    force: true,
  });
  t.strictSame((await asked('get-host-info')).params, {}, 'defaults are the daemon’s business');
  t.equal(
    (await asked('delete-snapshot', '--vm-id', 'v', '--snapshot-id', 's', '--wait')).options.wait,
    true,
  );
});

t.test('what is not right on a command line', async (t) => {
  const wrong: [string[], RegExp][] = [
    [['get-export'], /required option '--export-id <text>'/],
    [['get-export', '--export-id', 'a', '--force'], /unknown option '--force'/],
    [['get-changed-blocks', '--export-id', 'a', '--offset', '1k'], /"1k" is not an integer/],
    [['get-changed-blocks', '--export-id', 'a', '--encoding', 'hex'], /one of extents, bitmap/],
    [['prepare-backup-disk', '--export-id', 'a', '--since', 'monday'], /"monday" is not member=value/],
    [['prepare-backup-disk', '--export-id', 'a', '--since', '{"a"'], /JSON/],
    [['prepare-backup-disk', '--export-id', 'a', '--since', '@/no/such'], /ENOENT/],
    [['prepare-backup-disk', '--export-id', 'a', '--since', 'bitmap=a,bitmap=b'], /given twice/],
    [['get-job', '--job-id', 'j', '--timeout', 'long'], /number of seconds/],
    [['list-everything'], /unknown command 'list-everything'/],
    [['get-job', '--job-id', 'j', 'more'], /too many arguments/],
  ];
  for (const [args, told] of wrong) await t.rejects(asked(...args), told, args.join(' '));
});

t.test('a drive is taken out of the whole answer that it came in', async (t) => {
  const drive = { type: 'network', name: 'e1', hosts: [{ transport: 'unix', socket: '/s' }] };
  const [answer, alone] = [join(dir, 'answer.json'), join(dir, 'drive.json')];
  writeFileSync(answer, JSON.stringify({ exportId: 'e1', drive }));
  writeFileSync(alone, JSON.stringify(drive));
  const schema = verbSchemas.hotplugDisk.params.properties.drive ?? {};
  t.strictSame(readValue('drive', schema, `@${answer}`), drive);
  t.strictSame(readValue('drive', schema, `@${alone}`), drive);
  t.strictSame(readValue('drive', schema, JSON.stringify(drive)), drive);
  t.throws(() => readValue('drive', schema, `@${join(dir, 'none')}`), BadValue);
  const odd = readValue('drive', schema, '__proto__=x') as object;
  t.ok(Object.hasOwn(odd, '__proto__'), 'a member like any other, for the daemon to refuse');
});

t.test('answers for people', async (t) => {
  const rows = [
    {
      exportId: 'a',
      state: 'ready',
      lease: { expires: 'then' },
      attachedTo: [{ vmId: 'x' }, { vmId: 'y' }],
      bytes: 5,
    },
    { exportId: 'longer', state: 'failed', lease: null, attachedTo: [], bytes: null },
  ];
  const columns = ['exportId', 'state', 'bytes', 'lease.expires', 'attachedTo.vmId'];
  t.equal(
    show({ exports: rows }, columns),
    'exportId  state   bytes  lease.expires  attachedTo.vmId\n' +
      'a         ready       5  then           x y\n' +
      'longer    failed      -  -              -\n',
  );
  t.equal(show({ exports: [] }, columns), 'None.\n');
  t.equal(
    show({ exportId: 'a', checkpoint: { id: 'm', state: 'kept' } }),
    'exportId:   a\ncheckpoint:\n  id:    m\n  state: kept\n',
  );
  const extents = Array.from({ length: 12 }, (_, index) => ({ start: index, dirty: index > 9 }));
  const shown = show({ cbt: { mode: 'full', extents } });
  t.match(shown, /^ {4}start +dirty$/m);
  t.match(shown, /… and 2 more \(--json shows all\)/);
  t.match(show({ granularity: 1, extents }), /^ +11 +yes$/m, 'a list that was asked for is whole');
  t.match(
    show({ xml: '<a>\n\x1b[2J</a>\n' }),
    'xml:\n  <a>\n  \\u001b[2J</a>\n',
    'and cannot move the cursor',
  );
  t.equal(compact({ type: 'tcp', clients: ['a', 'b'] }), 'type=tcp,clients=a b');
});

t.test('failures for people, and their exit statuses', async (t) => {
  const failure = (data: object) => new RpcFailure(5002, 'The drive is plugged in.', { ...data });
  t.match(
    failureText(failure({ name: 'ExportInUse', retryable: true })),
    /^ExportInUse: The drive.*\n.*--retry/,
  );
  t.equal(statusOf(failure({ retryable: true })), 4);
  t.equal(statusOf(failure({ retryable: false })), 1);
  const told = failureText(
    failure({ name: 'X', libvirt: { message: 'no domain\x07' }, stderr: 'qemu: no\n' }),
  );
  t.equal(told, 'X: The drive is plugged in.\nlibvirt: no domain\\u0007\nqemu: no');
  const issues = [
    { path: '/since/checkpoint', message: 'is required' },
    { path: '', message: 'name vmId' },
  ];
  t.equal(failureText(failure({ issues })), '--since checkpoint is required\nname --vm-id');
});

t.test('completion in a real bash', async (t) => {
  const script = bashCompletion(createProgram(async () => {}));
  const completions = async (...words: string[]): Promise<string[]> => {
    const line = words.map((word) => `'${word}'`).join(' ');
    const ask = `COMP_WORDS=(vmdiskctl ${line}); COMP_CWORD=${words.length}; _vmdiskctl; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const { stdout } = await execa('bash', ['--norc', '-euc', `${script}\n${ask}`]);
    return stdout.split('\n').filter(Boolean);
  };
  t.strictSame(await completions('prep'), ['prepare-backup-disk']);
  t.strictSame(await completions('--host', 'x', 'list-e'), ['list-exports']);
  t.strictSame(await completions('teardown-backup-disk', '--f'), ['--force']);
  t.strictSame(await completions('teardown-backup-disk', '--outcome', ''), ['success', 'failed']);
  t.strictSame(await completions('teardown-backup-disk', '--outcome', 'f'), ['failed']);
  t.strictSame(await completions('get-export', '--export-id', ''), [], 'bash offers files');
  t.ok((await completions('get-export', '--')).includes('--json'));
  t.ok((await completions('help', 'get')).includes('get-export'));
});
