/** The XML that goes to libvirt and comes from it, and the names that disks are given. */
import fc from 'fast-check';
import t from 'tap';
import type { Drive } from '../../agent/api/generated.js';
import { type DomainConfig, type DomainDisk, parseDomain } from '../../agent/domains/config.js';
import { findDisk, whyUnsupported } from '../../agent/domains/disks.js';
import { driveXml } from '../../agent/domains/hotplug.js';
import { aliasOf, guestPathOf, isOurAlias } from '../../agent/domains/place.js';
import { busOfTarget, freeScsiTarget, freeTarget, type HotplugBus } from '../../agent/domains/targets.js';
import { element, elements, parseXml, text, toXml } from '../../agent/domains/xml.js';

/** XML 1.0, production 2, said another way than the code says it. */
function isXmlText(value: string): boolean {
  return [...value].every((character) => {
    const code = character.codePointAt(0) ?? 0;
    return (
      code === 0x9 ||
      code === 0xa ||
      code === 0xd ||
      (code >= 0x20 && code <= 0xd7ff) ||
      (code >= 0xe000 && code <= 0xfffd) ||
      (code >= 0x10000 && code <= 0x10ffff)
    );
  });
}

function throwsRangeError(work: () => unknown): boolean {
  try {
    work();
    return false;
  } catch (error) {
    return error instanceof RangeError;
  }
}

/** Strings of every kind: lone surrogates, controls, and above all what XML gives a meaning to. */
const anyString = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.string({
    unit: fc.constantFrom(
      ...'<>&"\'\t\n\r ]]>{}%\u0000\u0008\u000b\u001f\ufffe\ud800\udc00\u0085\u2028\u2029é💾',
    ),
  }),
  fc.constantFrom(']]>', '<!--', '&amp;', '&#0;', "' onload='", '<disk/>', '\r\n'),
);

t.test('any string comes through an attribute and through text unchanged, or is refused', async (t) => {
  fc.assert(
    fc.property(anyString, (value) => {
      const document = element('a', { b: value }, element('c', {}, value), element('d'));
      if (!isXmlText(value)) return throwsRangeError(() => toXml(document));
      const parsed = parseXml(toXml(document));
      return (
        elements('/a', parsed)[0]?.getAttribute('b') === value &&
        elements('/a/c', parsed)[0]?.textContent === value &&
        elements('//*', parsed).length === 3 && // it makes no element of its own
        text('/a/@b', parsed) === (value === '' ? null : value)
      );
    }),
    { numRuns: 1000 },
  );
  t.pass('1 property');
});

t.test('what is not well-formed is an error, never repaired', async (t) => {
  for (const broken of [
    '',
    'text',
    '<a>',
    '<a></b>',
    '<a b=c/>',
    '<a b="1" b="2"/>',
    '<a/><b/>',
    '<a>&nope;</a>',
  ]) {
    t.throws(() => parseXml(broken), /XML from libvirt is broken/, broken);
  }
  t.throws(() => parseDomain('<domainsnapshot/>'), /no <domain>/);
});

const drive: Drive = {
  type: 'network',
  device: 'disk',
  protocol: 'nbd',
  name: 'e1',
  hosts: [{ transport: 'unix', socket: "/run/a&b'<c>/nbd.sock" }],
  tls: false,
  format: 'raw',
  readonly: true,
  serial: 'abcdefghijklmnopqrst',
  capacity: 1 << 20,
};

t.test('the XML of a drive is read back as what was asked for', async (t) => {
  const alias = aliasOf(drive.serial);
  const xml = driveXml(drive, { target: 'sdb', bus: 'scsi', alias, scsi: { controller: 1, target: 4 } });
  const parsed = parseXml(xml);
  t.equal(text('/disk/driver/@error_policy', parsed), 'report', 'the guest is told, not paused');
  t.equal(text('/disk/source/@tls', parsed), 'no', 'said, or a host-wide setting would decide');
  const [disk] = parseDomain(`<domain><devices>${xml}</devices></domain>`).disks;
  t.match(disk, {
    target: 'sdb',
    bus: 'scsi',
    alias,
    serial: drive.serial,
    readonly: true,
    source: { type: 'network', path: null, format: 'raw' },
    nbd: { exportName: 'e1', socket: "/run/a&b'<c>/nbd.sock" },
    address: { type: 'drive', controller: '1', bus: '0', target: '4', unit: '0' },
  });
  const writable = driveXml(
    { ...drive, readonly: false, tls: true },
    { target: 'vdb', bus: 'virtio', alias, scsi: undefined },
  );
  t.equal(elements('/disk/readonly', parseXml(writable)).length, 0);
  t.equal(text('/disk/source/@tls', parseXml(writable)), 'yes');
  t.notOk(text('/disk/source/@tlsHostname', parseXml(writable)));
  const remote: Drive = {
    ...drive,
    hosts: [{ transport: 'tcp', name: '2001:db8::1', port: 10_809 }],
    tls: true,
    tlsHostname: 'gw.example',
  };
  const network = parseXml(driveXml(remote, { target: 'vdb', bus: 'virtio', alias, scsi: undefined }));
  t.equal(text('/disk/source/@tls', network), 'yes');
  t.equal(text('/disk/source/@tlsHostname', network), 'gw.example');
  t.equal(text('/disk/source/host/@name', network), '2001:db8::1');
  t.equal(text('/disk/source/host/@port', network), '10809');
  t.notOk(text('/disk/source/host/@transport', network));
});

t.test('aliases and guest paths', async (t) => {
  t.ok(isOurAlias(aliasOf(drive.serial)));
  for (const alias of [
    null,
    '',
    'ua-vmdiskd-',
    'virtio-disk0',
    `x${aliasOf(drive.serial)}`,
    'ua-vmdiskd-UPPER',
  ]) {
    t.notOk(isOurAlias(alias), String(alias));
  }
  t.equal(guestPathOf('virtio', 'abc'), '/dev/disk/by-id/virtio-abc');
  t.equal(guestPathOf('scsi', 'abc'), '/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_abc');
});

t.test('a running domain is read with its layers, addresses and kinds of disks', async (t) => {
  const config = parseDomain(`
    <domain type='kvm' id='3'>
      <name>a &amp; b</name><uuid>0c4c846d-ca72-4edc-b346-be8123f631d1</uuid>
      <devices>
        <disk type='file' device='disk'>
          <driver name='qemu' type='qcow2'/><source file='/i/top' index='3'/>
          <backingStore type='file'><format type='qcow2'/><source file='/i/mid'/>
            <backingStore type='block'><format type='raw'/><source dev='/dev/base'/><backingStore/></backingStore>
          </backingStore>
          <target dev='vda' bus='virtio'/><serial>s1</serial><alias name='virtio-disk0'/>
          <address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>
        </disk>
        <disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='/dev/x'/>
          <target dev='vdb' bus='virtio'/><shareable/></disk>
        <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
        <disk type='network' device='disk'><driver name='qemu' type='raw'/>
          <source protocol='rbd' name='pool/image'><host name='h'/></source><target dev='vdc'/></disk>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/i/e'>
          <encryption format='luks'/></source><target dev='vdd'/></disk>
        <disk type='file' device='disk'><driver name='qemu' type='vmdk'/><source file='/i/v'/>
          <target dev='vde'/></disk>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/i/t'/>
          <target dev='vdf'/><transient/></disk>
        <controller type='scsi' index='0' model='lsilogic'/>
      </devices>
    </domain>`);
  t.equal(config.name, 'a & b');
  t.strictSame(config.virtioScsi, [], 'another SCSI controller is none');
  const [vda, ...others] = config.disks;
  t.strictSame(vda?.backing, [
    { type: 'file', path: '/i/mid', format: 'qcow2' },
    { type: 'block', path: '/dev/base', format: 'raw' },
  ]);
  t.strictSame(vda?.address, { type: 'pci', domain: '0x0000', bus: '0x01', slot: '0x00', function: '0x0' });
  t.equal(vda === undefined ? 'absent' : whyUnsupported(vda), null);
  t.strictSame(
    others.map((disk) => whyUnsupported(disk)?.split(/[ ,]/).slice(0, 4).join(' ')),
    [
      'is shared with other',
      'is a cdrom device',
      'lies on a source',
      'is encrypted  and',
      'is in the format',
      'is transient and loses',
    ],
  );
  const domain = { name: 'a & b', uuid: config.uuid, id: 3 };
  const state = { domain, running: true, config };
  for (const name of ['vda', 'virtio-disk0', 's1']) t.equal(findDisk(state, name), vda);
  t.throws(() => findDisk(state, 'vdz'), { name: 'NoSuchDisk', message: /it has vda, vdb, sda/ });
  t.throws(() => findDisk(state, 'vdb'), { name: 'UnsupportedDisk', message: /inside the guest/ });
  // `s1` is the serial of two and the alias of a third, whose serial is the target of the first.
  const copies: Record<string, Partial<DomainDisk>> = {
    vde: { serial: 's1' },
    vdf: { alias: 's1', serial: 'vda' },
  };
  const copied = config.disks.map((disk) => ({ ...disk, ...copies[disk.target] }));
  const sharing = { domain, running: true, config: { ...config, disks: copied } };
  t.equal(findDisk(sharing, 'vda').target, 'vda', 'a target name never means another');
  t.throws(() => findDisk(sharing, 's1'), {
    name: 'NoSuchDisk',
    message:
      /^a & b has 3 disks with the alias or serial "s1"; name the one that is meant by its target: vda, vde, vdf\.$/,
    details: { vmId: config.uuid, disk: 's1' },
  });
  for (const model of ['virtio-scsi', 'virtio-transitional', 'virtio-non-transitional']) {
    const controller = `<controller type='scsi' index='2' model='${model}'/>`;
    t.strictSame(parseDomain(`<domain><devices>${controller}</devices></domain>`).virtioScsi, [2], model);
  }
});

const configWith = (targets: readonly string[]): DomainConfig => ({
  uuid: '',
  name: '',
  virtioScsi: [],
  scsiTargets: [],
  disks: targets.map((target) => ({ target }) as DomainDisk),
});

t.test('free targets: the first that no configuration has, over z and zz, of the right bus', async (t) => {
  t.equal(freeTarget('virtio', []), 'vda');
  t.equal(freeTarget('virtio', [configWith(['vda', 'vdc', 'sdb'])]), 'vdb');
  t.equal(freeTarget('scsi', [configWith(['sda']), configWith(['sdb'])]), 'sdc', 'running and stored');
  t.equal(busOfTarget('sdab'), 'scsi');
  t.equal(busOfTarget('vda'), 'virtio');
  const given: string[] = [];
  for (let i = 0; i < 26 + 26 * 26 + 3; i++) given.push(freeTarget('virtio', [configWith(given)]));
  t.strictSame(
    [0, 25, 26, 51, 52, 701, 702, 704].map((i) => given[i]),
    [...['vda', 'vdz', 'vdaa', 'vdaz', 'vdba', 'vdzz', 'vdaaa', 'vdaac']],
  );
  t.equal(new Set(given).size, given.length);
  fc.assert(
    fc.property(
      fc.constantFrom<HotplugBus>('virtio', 'scsi'),
      fc.array(fc.stringMatching(/^(vd|sd)[a-c]$/)),
      (bus, used) => {
        const free = freeTarget(bus, [configWith(used)]);
        return !used.includes(free) && busOfTarget(free) === bus;
      },
    ),
  );
});

t.test(
  'free SCSI targets: on a controller that all configurations have, never where libvirt puts disks itself',
  async (t) => {
    const withScsi = (
      virtioScsi: number[],
      taken: [controller: number, target: number][] = [],
    ): DomainConfig => ({
      ...configWith([]),
      virtioScsi,
      scsiTargets: taken.map(([controller, target]) => ({ controller, target })),
    });
    t.strictSame(freeScsiTarget([withScsi([0])]), { controller: 0, target: 1 });
    t.strictSame(freeScsiTarget([withScsi([3, 1])]), { controller: 1, target: 1 });
    t.strictSame(
      freeScsiTarget([
        withScsi(
          [0],
          [
            [0, 0],
            [0, 1],
            [1, 2],
          ],
        ),
      ]),
      { controller: 0, target: 2 },
    );
    t.strictSame(freeScsiTarget([withScsi([0, 1], [[0, 1]]), withScsi([1], [[1, 1]])]), {
      controller: 1,
      target: 2,
    });
    const full = Array.from({ length: 255 }, (_, i): [number, number] => [0, i + 1]);
    t.strictSame(freeScsiTarget([withScsi([0, 7], full)]), { controller: 7, target: 1 });
    t.equal(freeScsiTarget([withScsi([0], full)]), null, 'full');
    t.equal(freeScsiTarget([withScsi([0]), withScsi([])]), undefined, 'none that both have');
    const { scsiTargets } = parseDomain(`<domain><devices>
    <disk type='file'><target dev='sda'/><address type='drive' controller='0' bus='0' target='0' unit='3'/></disk>
    <hostdev mode='subsystem' type='scsi'><address type='drive' controller='1' bus='0' target='5' unit='0'/></hostdev>
    <disk type='file'><target dev='vda'/><address type='pci' domain='0' bus='1' slot='0' function='0'/></disk>
  </devices></domain>`);
    t.strictSame(scsiTargets, [
      { controller: 0, target: 0 },
      { controller: 1, target: 5 },
    ]);
  },
);
