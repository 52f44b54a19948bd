/** A disk of a guest. */
export interface GuestDisk {
  /** `vda`, `sda`, `hda`. */
  target: string;
  /** `sata` disks exist for QEMU and libvirt only: Debian's cloud kernel has no driver. `ide` works on machine `pc`. */
  bus?: 'virtio' | 'scsi' | 'sata' | 'ide';
  /** Inside path. */
  path: string;
  format: 'raw' | 'qcow2';
  serial?: string;
  readonly?: boolean;
  /** Attributes of `<driver>` besides name and type, e.g. `discard='unmap' detect_zeroes='on'`. */
  driver?: string;
  /** Further elements of `<disk>`, as XML. */
  xml?: string;
}

export interface GuestOptions {
  name: string;
  disks?: GuestDisk[];
  /** A virtio-scsi controller, also without a scsi disk (default: when a disk is on scsi). */
  scsiController?: boolean;
  /** `q35` (default) plugs PCI devices into root ports, `pc` into its one bus. */
  machine?: 'q35' | 'pc';
  /** Free root ports for hot-plug on q35 (default 4; 0 leaves none). */
  pciePorts?: number;
  memoryMiB?: number;
  /** With the guest agent's channel; the guest then runs qemu-ga. */
  agent?: boolean;
  /** Defined and started (default true), or transient. */
  define?: boolean;
  /** Further elements of `<devices>`, as XML. */
  devicesXml?: string;
  /** Boots within this (default 120 s: two cores emulate several guests). */
  bootMs?: number;
}

const escapeXml = (text: string): string =>
  text.replace(/[&<>'"]/g, (character) => `&#${character.charCodeAt(0)};`);

/** `<disk>` of a guest disk. Images take what a guest discards, as QEMU's `discard=unmap`. */
export function diskXml(disk: GuestDisk): string {
  return `
    <disk type='file' device='disk'>
      <driver name='qemu' type='${disk.format}' ${disk.driver ?? "discard='unmap'"}/>
      <source file='${escapeXml(disk.path)}'/>
      <target dev='${disk.target}' bus='${disk.bus ?? 'virtio'}'/>
      ${disk.serial === undefined ? '' : `<serial>${escapeXml(disk.serial)}</serial>`}
      ${disk.readonly ? '<readonly/>' : ''}
      ${disk.xml ?? ''}
    </disk>`;
}

/**
 * Domain XML of a test guest: emulated, no graphics, no network. `bootDir` holds the kernel and initramfs; the boot
 * log goes to `consoleFile`, commands come in on the UNIX socket `shellSocket`.
 */
export function domainXml(
  options: GuestOptions,
  paths: { bootDir: string; consoleFile: string; shellSocket: string },
): string {
  const disks = options.disks ?? [];
  const machine = options.machine ?? 'q35';
  const scsi = options.scsiController ?? disks.some((disk) => disk.bus === 'scsi');
  const onPci = disks.filter((disk) => (disk.bus ?? 'virtio') === 'virtio').length;
  // virtio-serial and virtio-rng take a port each.
  const ports = 2 + onPci + (scsi ? 1 : 0) + (options.pciePorts ?? 4);
  const controllers = [
    "<controller type='usb' model='none'/>",
    ...(scsi ? ["<controller type='scsi' index='0' model='virtio-scsi'/>"] : []),
    ...(machine === 'q35'
      ? [
          "<controller type='pci' index='0' model='pcie-root'/>",
          ...Array.from({ length: ports }, () => "<controller type='pci' model='pcie-root-port'/>"),
        ]
      : []),
  ];
  return `
<domain type='qemu'>
  <name>${escapeXml(options.name)}</name>
  <memory unit='MiB'>${options.memoryMiB ?? 256}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='${machine}'>hvm</type>
    <kernel>${paths.bootDir}/vmlinuz</kernel>
    <initrd>${paths.bootDir}/initramfs.cpio</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 nokaslr mitigations=off random.trust_cpu=on</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    ${controllers.join('\n    ')}
    ${disks.map(diskXml).join('')}
    <serial type='file'><source path='${paths.consoleFile}'/><target port='0'/></serial>
    <channel type='unix'>
      <source mode='bind' path='${paths.shellSocket}'/>
      <target type='virtio' name='vmd.shell'/>
    </channel>
    ${options.agent ? "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>" : ''}
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <memballoon model='none'/>
    ${options.devicesXml ?? ''}
  </devices>
</domain>`;
}
