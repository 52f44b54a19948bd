/** The search for keys that have got out finds them; that none has is looked at as each private host of the suite ends. */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { Secrets } from './secrets.js';

const KEY = '00f1'.repeat(16);
const answer = JSON.stringify({ result: { credentials: { type: 'psk', identity: 'e', key: KEY } } });

t.test('a key is given out by the verb that makes it, and told by no other', async (t) => {
  const secrets = new Secrets();
  secrets.answered('prepareBackupDisk', answer);
  secrets.answered('prepareBackupDisk', answer);
  t.equal(secrets.count, 1);
  t.strictSame(secrets.leaks('/nonexistent', new Map()), []);
  secrets.answered('listExports', answer);
  t.match(secrets.leaks('/nonexistent', new Map()), [/answer to listExports/]);
});

t.test('logs and files', async (t) => {
  const secrets = new Secrets();
  secrets.answered('prepareBackupDisk', answer);
  const dir = t.testdir();
  const write = (file: string, text: string, mode: number): void => {
    mkdirSync(dirname(join(dir, file)), { recursive: true });
    writeFileSync(join(dir, file), text);
    chmodSync(join(dir, file), mode);
  };
  write('run/vmdiskd/gateway/exports/e.json', `{"key": "${KEY}"}`, 0o600);
  write('var/log/libvirt/qemu/web.log', 'nothing', 0o644);
  t.strictSame(secrets.leaks(dir, new Map([['daemon 1', 'nothing']])), []);
  const base64 = Buffer.from(KEY, 'hex').toString('base64');
  write('run/vmdiskd/gateway/exports/e.json', `{"key": "${KEY}"}`, 0o644);
  write('run/vmdiskd/events/1', `key ${KEY.toUpperCase()}`, 0o600);
  write('var/log/libvirt/qemu/web.log', `-object ${base64}`, 0o644);
  t.match(secrets.leaks(dir, new Map([['daemon 1', `sent ${KEY}`]])), [
    /^daemon 1: hex/,
    /^run\/vmdiskd\/events\/1 .*HEX/,
    /^run\/vmdiskd\/gateway\/exports\/e.json \(644, uid 0\)/,
    /^var\/log\/libvirt\/qemu\/web.log .*base64/,
  ]);
});
