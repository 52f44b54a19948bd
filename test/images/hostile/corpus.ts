/** Images and paths that are not what they seem: each is to be refused by name, with nothing opened that it leads to. */
import { bitmapsExtension, EXTENSION, type Extension, type Qcow2Parts, qcow2Image } from './qcow2-image.js';

/** Where the images lie, the allowed root; and where the files lie that must not be touched. */
export interface Places {
  images: string;
  secret: string;
}

export interface HostileCase {
  what: string;
  refusedAs: 'UnsafeImage' | 'PathNotAllowed' | 'WrongFormat' | 'UnsupportedDisk' | 'NoSuchImage';
  /** The image that is asked for; under `images` unless it begins with a slash. */
  path: string;
  format: 'qcow2' | 'raw';
  /** Files to be made under `images` first. */
  files?: Record<string, Buffer>;
  /** Shell commands in `images` for what is no file with content; `$SECRET` is the other place. */
  make?: string;
}

export function hostileCases(places: Places): HostileCase[] {
  return [...paths(places), ...formats(places), ...backings(places), ...dataFiles(places), ...numbers()];
}

function paths({ images, secret }: Places): HostileCase[] {
  const raw = { format: 'raw', refusedAs: 'PathNotAllowed' } as const;
  return [
    { ...raw, what: 'a file of the host', path: `${secret}/key` },
    { ...raw, what: 'a way out by ..', path: `${images}/../../../../../..${secret}/key` },
    { ...raw, what: 'a link', path: 'link', make: 'ln -s "$SECRET/key" link' },
    {
      ...raw,
      what: 'links to links',
      path: 'link-3',
      make: 'ln -s "$SECRET/key" l1; ln -s l1 l2; ln -s l2 link-3',
    },
    { ...raw, what: 'a file behind a linked directory', path: 'away/key', make: 'ln -s "$SECRET" away' },
    {
      ...raw,
      what: 'a directory whose name begins like the root',
      path: `${images}-else/key`,
      make: 'mkdir -p ../images-else; cp "$SECRET/key" ../images-else/',
    },
    { ...raw, what: 'the root itself', path: images },
    { ...raw, what: 'another way to the root of the host', path: `/proc/self/root${secret}/key` },
    { ...raw, what: "the daemon's own descriptors", path: '/proc/self/fd/1' },
    { ...raw, what: 'memory', path: '/proc/self/mem' },
    { ...raw, what: 'a device of the host', path: '/dev/zero' },
    { ...raw, what: 'a link to a device', path: 'zero', make: 'ln -s /dev/zero zero' },
    { ...raw, what: 'a directory', refusedAs: 'UnsafeImage', path: 'directory', make: 'mkdir directory' },
    { ...raw, what: 'a FIFO', refusedAs: 'UnsafeImage', path: 'fifo', make: 'mkfifo fifo' },
    {
      ...raw,
      what: 'a character device',
      refusedAs: 'UnsafeImage',
      path: 'character',
      make: 'mknod character c 1 5',
    },
    {
      ...raw,
      what: 'a socket',
      refusedAs: 'UnsafeImage',
      path: 'socket',
      make: 'python3 -c "import socket; socket.socket(socket.AF_UNIX).bind(\'socket\')"',
    },
    { ...raw, what: 'a link to itself', refusedAs: 'NoSuchImage', path: 'loop', make: 'ln -s loop loop' },
    {
      ...raw,
      what: 'something below a file',
      refusedAs: 'NoSuchImage',
      path: 'flat/key',
      files: { flat: Buffer.alloc(512) },
    },
  ];
}

/** What another program would find by looking at the content. */
function formats({ secret }: Places): HostileCase[] {
  const vmdk = `# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 2048 FLAT "${secret}/key" 0\n`;
  const contents: [what: string, content: Buffer][] = [
    ['a vmdk whose extent is a file of the host', Buffer.from(vmdk)],
    ['a qed image', Buffer.from('QED\0'.padEnd(4096, '\0'))],
    ['a vhdx image', Buffer.from('vhdxfile'.padEnd(4096, '\0'))],
    ['a vdi image', Buffer.from('<<< Oracle VM VirtualBox Disk Image >>>\n'.padEnd(4096, '\0'))],
    ['a LUKS container', Buffer.from('LUKS\xba\xbe'.padEnd(4096, '\0'), 'latin1')],
    ['a script', Buffer.from('#!/bin/sh\ncat /etc/shadow\n'.padEnd(512, ' '))],
    ['nothing', Buffer.alloc(0)],
    ['four bytes', qcow2Image({ cut: 4 })],
  ];
  return contents.map(([what, content], i) => ({
    what: `${what}, called qcow2`,
    refusedAs: 'WrongFormat',
    path: `format-${i}.qcow2`,
    format: 'qcow2',
    files: { [`format-${i}.qcow2`]: content },
  }));
}

function backings({ images, secret }: Places): HostileCase[] {
  const named = (
    what: string,
    refusedAs: HostileCase['refusedAs'],
    backing: string | Buffer,
    more: Partial<HostileCase> & { backingFormat?: string } = {},
    i = 0,
  ): HostileCase => {
    const path = `backed-${what.replaceAll(/[^a-z0-9]+/g, '-')}-${i}.qcow2`;
    const { backingFormat = 'raw', ...rest } = more;
    const image = qcow2Image({ backing, ...(backingFormat !== '' && { backingFormat }) });
    return {
      what: `backed by ${what}`,
      refusedAs,
      path,
      format: 'qcow2',
      ...rest,
      files: { [path]: image, ...rest.files },
    };
  };
  const protocols = [
    `json:{"driver":"file","filename":"${secret}/key"}`,
    `json:{"driver":"raw","file":{"driver":"host_device","filename":"/dev/mem"}}`,
    `json:{"driver":"qcow2","file":{"driver":"file","filename":"${images}/x"},"data-file":{"driver":"file","filename":"${secret}/key"}}`,
    `file:${secret}/key`,
    `raw:${secret}/key`,
    `blkdebug::${secret}/key`,
    `host_device:/dev/mem`,
    'nbd://127.0.0.1:10809/x',
    'nbd+unix:///x?socket=/run/libvirt/libvirt-sock',
    'ssh://127.0.0.1/etc/shadow',
    'https://127.0.0.1/x',
    'vvfat:/etc',
    'fat:rw:/etc',
    'null-co://',
  ];
  const depth = Object.fromEntries(
    Array.from({ length: 66 }, (_, i) => [
      `deep-${i}.qcow2`,
      qcow2Image(i === 65 ? {} : { backing: `deep-${i + 1}.qcow2`, backingFormat: 'qcow2' }),
    ]),
  );
  return [
    named('a file of the host', 'PathNotAllowed', `${secret}/key`),
    named('a file of the host by ..', 'PathNotAllowed', `../../../../../../..${secret}/key`),
    named('a link', 'PathNotAllowed', 'backing-link', { make: 'ln -s "$SECRET/key" backing-link' }),
    named('a file behind a link', 'PathNotAllowed', 'backing-away/key', {
      make: 'ln -s "$SECRET" backing-away',
    }),
    named('a device', 'PathNotAllowed', '/dev/zero'),
    named('a FIFO', 'UnsafeImage', 'backing-fifo', { make: 'mkfifo backing-fifo' }),
    named('a directory', 'UnsafeImage', 'backing-directory', { make: 'mkdir backing-directory' }),
    ...protocols.map((name, i) => named('a protocol', 'UnsafeImage', name, {}, i)),
    named('a name with a NUL', 'UnsafeImage', Buffer.from(`${images}/x\0${secret}/key`)),
    named('a name that is no text', 'UnsafeImage', Buffer.from([0x2f, 0xff, 0xfe, 0x2f])),
    named('a name of 1,024 bytes', 'UnsafeImage', 'x'.repeat(1024)),
    named('a file of no recorded format', 'WrongFormat', `${secret}/key`, { backingFormat: '' }),
    ...['vmdk', 'luks', 'host_device', 'file', 'auto'].map((format, i) =>
      named('a format that is not exported', 'WrongFormat', `${secret}/key`, { backingFormat: format }, i),
    ),
    named('itself', 'UnsafeImage', 'backed-itself-0.qcow2', { backingFormat: 'qcow2' }),
    named('another that it backs', 'UnsafeImage', 'circle.qcow2', {
      backingFormat: 'qcow2',
      files: {
        'circle.qcow2': qcow2Image({
          backing: 'backed-another-that-it-backs-0.qcow2',
          backingFormat: 'qcow2',
        }),
      },
    }),
    {
      what: 'sixty-six layers',
      refusedAs: 'UnsafeImage',
      path: 'deep-0.qcow2',
      format: 'qcow2',
      files: depth,
    },
    {
      ...named('a name far outside the header', 'UnsafeImage', 'x'),
      ...broken('far.qcow2', { backing: 'x', fields: { backingOffset: 2n ** 40n } }),
    },
    {
      ...named('a name at the end of all numbers', 'UnsafeImage', 'x'),
      ...broken('end.qcow2', { backing: 'x', fields: { backingOffset: 2n ** 64n - 1n } }),
    },
  ];
}

/** CVE-2024-32498 and its kin: QEMU opens what the header of an image names as the place of its data. */
function dataFiles({ secret }: Places): HostileCase[] {
  const dataFile = (name: string): Extension[] => [{ type: EXTENSION.dataFile, data: name }];
  const bit = { fields: { incompatible: 1n << 2n } } as const;
  const host = { ...bit, extensions: dataFile(`${secret}/key`) };
  const unsafe = (what: string, files: Record<string, Qcow2Parts>): HostileCase => ({
    what,
    refusedAs: 'UnsafeImage',
    path: Object.keys(files)[0] ?? '',
    format: 'qcow2',
    files: Object.fromEntries(Object.entries(files).map(([name, parts]) => [name, qcow2Image(parts)])),
  });
  const on = (backing: string): Qcow2Parts => ({ backing, backingFormat: 'qcow2' });
  return [
    unsafe('data in a file of the host (CVE-2024-32498)', { 'data-host.qcow2': host }),
    unsafe('the same, below an overlay', {
      'data-over.qcow2': on('data-below.qcow2'),
      'data-below.qcow2': host,
    }),
    unsafe('the same, three layers down', {
      'data-3.qcow2': on('data-2.qcow2'),
      'data-2.qcow2': on('data-1.qcow2'),
      'data-1.qcow2': on('data-0.qcow2'),
      'data-0.qcow2': host,
    }),
    unsafe('data in a raw file of the host, whole', {
      'data-raw.qcow2': { ...host, fields: { ...bit.fields, autoclear: 2n } },
    }),
    unsafe('data by a json: name (CVE-2024-4467)', {
      'data-json.qcow2': {
        ...bit,
        extensions: dataFile(`json:{"driver":"file","filename":"${secret}/key"}`),
      },
    }),
    unsafe('data from the network', {
      'data-nbd.qcow2': { ...bit, extensions: dataFile('nbd://127.0.0.1:10809/x') },
    }),
    unsafe('data in a file without a name', { 'data-none.qcow2': bit }),
    unsafe('data in a file beside it', { 'data-near.qcow2': { ...bit, extensions: dataFile('flat') } }),
  ];
}

/** Headers whose numbers lead out of the file, out of memory, or to what no reader knows. */
function numbers(): HostileCase[] {
  const of: [what: string, parts: Qcow2Parts][] = [
    ['version 0', { fields: { version: 0 } }],
    ['version 1', { fields: { version: 1 } }],
    ['version 4', { fields: { version: 4 } }],
    ['a disk of 2^63 bytes', { fields: { size: 2n ** 63n } }],
    ['a disk of 2^64 - 512 bytes', { fields: { size: 2n ** 64n - 512n } }],
    ['a disk larger than its L1 table', { fields: { size: 2 ** 40 } }],
    ['an L1 table of 2^32 - 1 entries', { fields: { l1Size: 2 ** 32 - 1 } }],
    ['an L1 table at the end of all numbers', { fields: { l1Offset: 2n ** 64n - 65536n } }],
    ['an L1 table beyond the file', { fields: { l1Offset: 2 ** 40 } }],
    ['an L1 table askew', { fields: { l1Offset: 65544 } }],
    ['a refcount table of 2^32 - 1 clusters', { fields: { refcountClusters: 2 ** 32 - 1 } }],
    ['a refcount table at the end of all numbers', { fields: { refcountOffset: 2n ** 64n - 65536n } }],
    ['a refcount table askew', { fields: { refcountOffset: 65537 } }],
    ['refcounts of 128 bits', { fields: { refcountOrder: 7 } }],
    ['2^32 - 1 snapshots', { fields: { snapshots: 2 ** 32 - 1, snapshotsOffset: 65536 } }],
    ['snapshots beyond the file', { fields: { snapshots: 1, snapshotsOffset: 2 ** 40 } }],
    ['snapshots askew', { fields: { snapshots: 1, snapshotsOffset: 12345 } }],
    ['clusters of 256 bytes', { fields: { clusterBits: 8 } }],
    ['clusters of 4 MiB', { fields: { clusterBits: 22 } }],
    ['clusters of 2^(2^32 - 1) bytes', { fields: { clusterBits: 2 ** 32 - 1 } }],
    ['a header of 0 bytes', { fields: { headerLength: 0 } }],
    ['a header longer than its cluster', { fields: { headerLength: 65544 } }],
    ['a header of 2^32 - 1 bytes', { fields: { headerLength: 2 ** 32 - 1 } }],
    ['an unknown incompatible feature', { fields: { incompatible: 1n << 5n } }],
    ['the last of all incompatible features', { fields: { incompatible: 1n << 63n } }],
    ['extended L2 entries in small clusters', { fields: { incompatible: 1n << 4n, clusterBits: 12 } }],
    ['an unknown compression', { fields: { incompatible: 1n << 3n } }],
    ['an unknown encryption', { fields: { cryptMethod: 3 } }],
    [
      'an encryption header without encryption',
      { extensions: [{ type: EXTENSION.encryption, data: Buffer.alloc(16) }] },
    ],
    [
      'an extension of 2^32 - 1 bytes',
      { extensions: [{ type: EXTENSION.featureNames, data: 'x', length: 2 ** 32 - 1 }] },
    ],
    ['extensions without an end', { end: Buffer.alloc(65536 - 104, '\x01\x02\x03\x04\0\0\0\0', 'latin1') }],
    [
      'a bitmap directory of 2^63 bytes',
      { extensions: [bitmapsExtension(1, 2n ** 63n, 65536)], fields: { autoclear: 1 } },
    ],
    [
      'a bitmap directory of 1 GiB',
      { extensions: [bitmapsExtension(1, 2 ** 30, 65536)], fields: { autoclear: 1 } },
    ],
    [
      'a bitmap directory beyond the file',
      { extensions: [bitmapsExtension(1, 24, 2 ** 40)], fields: { autoclear: 1 } },
    ],
    [
      '2^32 - 1 bitmaps',
      { extensions: [bitmapsExtension(2 ** 32 - 1, 24, 65536)], fields: { autoclear: 1 } },
    ],
    ['a bitmap of no granularity', { extensions: [bitmapsExtension(1, 24, 0)], fields: { autoclear: 1 } }],
    ['version 2, cut within its cluster', { fields: { version: 2 }, cut: 103 }],
    ['a header cut at 100 bytes', { cut: 100 }],
    ['a file cut before its L1 table', { cut: 3 * 65536 }],
  ];
  const refused = of.map(
    ([what, parts], i): HostileCase => ({
      what,
      refusedAs: 'UnsafeImage',
      format: 'qcow2',
      ...broken(`number-${i}.qcow2`, parts),
    }),
  );
  return [
    ...refused,
    {
      what: 'an encrypted image',
      refusedAs: 'UnsupportedDisk',
      format: 'qcow2',
      ...broken('aes.qcow2', { fields: { cryptMethod: 1 } }),
    },
  ];
}

function broken(path: string, parts: Qcow2Parts): { path: string; files: Record<string, Buffer> } {
  return { path, files: { [path]: qcow2Image(parts) } };
}
