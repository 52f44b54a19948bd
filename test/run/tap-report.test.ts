import t from 'tap';
import { type FileReport, TapReport } from './tap-report.js';

function read(text: string): { files: FileReport[]; report: TapReport } {
  const files: FileReport[] = [];
  const report = new TapReport((file) => files.push(file));
  for (const line of text.split('\n')) report.line(line);
  report.end();
  return { files, report };
}

const PASSING = `TAP version 14
1..2
# Subtest: test/a.test.ts
    # Subtest: outer
        ok 1 - looks like not ok 7 - but is not
        1..1
    ok 1 - outer # time=9.1ms
    1..1
    # time=10.5ms
ok 1 - test/a.test.ts # time=1500.5ms
`;

t.test('a passing file is one line, with tap’s own totals', async (t) => {
  const { files, report } = read(`${PASSING}\n# { total: 12, pass: 12 }\n# time=3201.505ms`);
  t.strictSame(files, [
    { name: 'test/a.test.ts', ok: true, seconds: 1.5005, detail: files[0]?.detail, skipped: [] },
  ]);
  t.strictSame(report.totals, { passed: 12, failed: 0, skipped: 0 });
});

t.test('a failing file keeps what tells of the failure, and the diagnostics after its line', async (t) => {
  const { files, report } = read(`${PASSING}
# Subtest: test/b.test.ts
    ok 1 - uninteresting
    not ok 2 - is one
      ---
      diff: |
        -2
        +1
      ...
not ok 2 - test/b.test.ts # time=624.6ms
  ---
  exitCode: 1
  ...

not ok 3 - timeout!
  ---
  expired: test/c.test.ts
  ...

# { total: 14, pass: 10, fail: 2, skip: 1, todo: 1 }`);
  t.strictSame(
    files.map((file) => [file.name, file.ok]),
    [
      ['test/a.test.ts', true],
      ['test/b.test.ts', false],
      ['timeout!', false],
    ],
  );
  t.match(files[1]?.detail, /not ok 2 - is one\n.*\+1\n.*exitCode: 1/s);
  t.notMatch(files[1]?.detail, /uninteresting/);
  t.match(files[2]?.detail, /expired: test\/c.test.ts/);
  t.strictSame(report.totals, { passed: 10, failed: 2, skipped: 2 });
});

t.test('what is skipped is named', async (t) => {
  const { files } = read(`# Subtest: test/d.test.ts
    ok 1 - later # SKIP no time
    not ok 2 - one day # TODO
    1..2
ok 1 - test/d.test.ts # time=2ms
ok 2 - test/e.test.ts # SKIP`);
  t.strictSame(
    files.map((file) => file.skipped),
    [['ok 1 - later # SKIP no time', 'not ok 2 - one day # TODO'], ['ok 2 - test/e.test.ts # SKIP']],
  );
});

t.test('a stream that was cut off has no totals', async (t) => {
  t.equal(read(PASSING).report.totals, undefined);
});
