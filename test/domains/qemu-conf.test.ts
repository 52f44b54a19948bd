/** What libvirt's qemu.conf says of the certificates that QEMU opens NBD exports with. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { nbdCertificateDirectory, parseConf, qemuConfFile } from '../../agent/domains/qemu-conf.js';

t.test("libvirt's settings, as libvirt reads them", async (t) => {
  const conf = parseConf(`
# nbd_tls_x509_cert_dir = "/commented"
  user="qemu" # why
nbd_tls = 1
nbd_tls_x509_cert_dir = "/first \\\\ #1"
nbd_tls_x509_cert_dir = "/second"
default_tls_x509_cert_dir = '/quoted "so"'
cgroup_controllers = [ "cpu",
  "devices" ]
empty = ""
unfinished = "/x
`);
  t.strictSame([...conf].sort(), [
    ['default_tls_x509_cert_dir', '/quoted "so"'],
    ['empty', ''],
    ['nbd_tls_x509_cert_dir', '/first \\\\ #1'],
    ['user', 'qemu'],
  ]);
});

t.test('the directory: of NBD, else the one that is there, else of all services', async (t) => {
  const dir = t.testdir({
    own: 'default_tls_x509_cert_dir = "/d"\nnbd_tls_x509_cert_dir = "/n"\n',
    all: 'default_tls_x509_cert_dir = "/d"\n',
  });
  const of = (name: string) => nbdCertificateDirectory(join(dir, name));
  t.strictSame(await of('own'), { dir: '/n', because: `nbd_tls_x509_cert_dir in ${dir}/own` });
  const there = existsSync('/etc/pki/libvirt-nbd');
  t.equal((await of('all')).dir, there ? '/etc/pki/libvirt-nbd' : '/d');
  t.equal((await of('none')).dir, there ? '/etc/pki/libvirt-nbd' : '/etc/pki/qemu');
});

t.test('the file, of the system and of a session', async (t) => {
  t.equal(qemuConfFile('qemu:///system'), '/etc/libvirt/qemu.conf');
  t.match(qemuConfFile('qemu:///session'), /\/libvirt\/qemu\.conf$/);
});
