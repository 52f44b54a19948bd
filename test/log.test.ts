import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { test } from 'tap';
import { createLog } from '../agent/log.js';

/** Everything that `use` logs. */
function logged(
  options: Omit<Parameters<typeof createLog>[0], 'out'>,
  use: (log: ReturnType<typeof createLog>) => void,
): string {
  const lines: string[] = [];
  use(createLog({ ...options, out: { write: (line: string) => void lines.push(line) } }));
  return lines.join('');
}

test('JSON lines with a time and a level', async (t) => {
  const [line, ...more] = logged({ level: 'info', journal: false }, (log) => {
    log.debug('no');
    log.child({ verb: 'getExport' }).info({ ms: 3 }, 'yes');
  })
    .trim()
    .split('\n');
  t.match(JSON.parse(String(line)), {
    level: 'info',
    verb: 'getExport',
    ms: 3,
    msg: 'yes',
    time: /^\d{4}-.*Z$/,
  });
  t.strictSame(more, []);
});

test('for a journal without a relay each line begins with its priority', async (t) => {
  const text = logged({ level: 'trace', journal: true, relay: null }, (log) => {
    for (const level of ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const) log[level](level);
  });
  t.strictSame(
    text
      .trim()
      .split('\n')
      .map((line) => [line.slice(0, 3), JSON.parse(line.slice(3)).msg]),
    [
      ['<7>', 'trace'],
      ['<7>', 'debug'],
      ['<6>', 'info'],
      ['<4>', 'warn'],
      ['<3>', 'error'],
      ['<2>', 'fatal'],
    ],
  );
});

test('keys, PSKs and passwords are never written', async (t) => {
  const text = logged({ level: 'info', journal: false }, (log) => {
    log.info({ key: 'hush', psk: 'hush', credentials: { type: 'psk', key: 'hush' } });
    log.info({ result: { credentials: { key: 'hush' }, password: 'hush' }, tls: { a: { key: 'hush' } } });
    log.child({ psk: 'hush' }).info('child');
  });
  t.notMatch(text, 'hush');
  t.match(text, /\[secret\]/);
});

test('the standard output is the journal only if JOURNAL_STREAM names that very file', async (t) => {
  const module = fileURLToPath(new URL('../agent/log.ts', import.meta.url));
  const script = `
    import { fstatSync } from 'node:fs';
    const { dev, ino } = fstatSync(1);
    if (process.argv[1] === 'same') process.env.JOURNAL_STREAM = dev + ':' + ino;
    const { createLog } = await import(${JSON.stringify(module)});
    createLog({ level: 'info' }).info('line');`;
  const run = (...args: string[]) =>
    spawnSync(process.execPath, ['--import=tsx', '--input-type=module', '-e', script, ...args], {
      encoding: 'utf8',
      env: { ...process.env, JOURNAL_STREAM: '1:1' },
    }).stdout;
  // It names another: there is no journal here, so that lines go the other way, with their priority.
  t.match(run('same'), /^<6>\{.*\}\n$/);
  t.match(run('other'), /^\{.*\}\n$/);
});
