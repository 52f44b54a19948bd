/** Decides who may do what: roles, the VMs that they are for, and whose things are whose. */
import { realpath } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Verbs } from '../api/generated.js';
import { findDomainIfAny, readAllDomains } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import type { ExportsContext } from '../exports/context.js';
import type { DriveRecord } from '../exports/drive-record.js';
import type { ExportRecord } from '../exports/record.js';
import { fileAt, isSameFile } from '../host/open-files.js';
import { type Grant, type Identity, isAdmin, type Role, reaches } from './identity.js';
import { rules, type Subject } from './rules.js';

/** A thing that has an owner, and a VM where it is about one. */
export interface Owned {
  readonly owner?: string;
  /** UUID. */
  readonly vmId?: string | null;
}

/** A VM as it may be named in a role: by either. */
interface VmNames {
  readonly uuid: string;
  readonly name: string;
}

type PolicyContext = Pick<
  ExportsContext,
  'registry' | 'drives' | 'backups' | 'jobs' | 'libvirt' | 'settings'
>;

export class AccessPolicy {
  readonly #context: PolicyContext;

  constructor(context: PolicyContext) {
    this.#context = context;
  }

  /**
   * @param params checked against the schema
   * @throws AgentError `NotAuthorized`, which says which role is needed; `LibvirtUnavailable`
   */
  async check<N extends keyof Verbs>(
    verb: N,
    params: Verbs[N]['params'],
    identity: Identity,
    signal: AbortSignal,
  ): Promise<void> {
    if (isAdmin(identity) || verb === 'rpc.discover') return;
    const rule = rules[verb as Exclude<N, 'rpc.discover'>];
    const role = typeof rule.role === 'string' ? rule.role : rule.role(params as never);
    if (!identity.grants.some((grant) => reaches(grant.role, role))) {
      throw refused(`${verb} needs the role ${role}`, identity);
    }
    for (const subject of rule.subjects?.(params as never) ?? []) {
      await this.#checkSubject(subject, { verb, role, reads: rule.reads === true }, identity, signal);
    }
  }

  /**
   * What of lists and events the caller may see: its own, and what is about VMs that it observes.
   * @throws AgentError `LibvirtUnavailable`, where the VMs' names cannot be looked up
   */
  async sight(identity: Identity, signal: AbortSignal): Promise<(thing: Owned) => boolean> {
    if (isAdmin(identity)) return () => true;
    const ofAny = await this.#uuidsOf(identity.grants, signal);
    const observed = await this.#uuidsOf(identity.grants.filter(isObserving), signal);
    return ({ owner, vmId }) => {
      if (owner !== undefined) return owner === identity.name || includes(observed, vmId);
      // What happens to a VM has no owner; what happens to the host is for everybody.
      return vmId === undefined || vmId === null || includes(ofAny, vmId);
    };
  }

  async #checkSubject(
    subject: Subject,
    call: { verb: string; role: Role; reads: boolean },
    identity: Identity,
    signal: AbortSignal,
  ): Promise<void> {
    switch (subject.kind) {
      case 'vm':
        return this.#checkVm(subject.vmId, call, identity, signal);
      case 'path':
        return this.#checkPath(subject, call, identity, signal);
      case 'newPath':
        return this.#checkNewPath(subject.path, call, identity, signal);
      case 'export':
        return this.#checkExport(this.#context.registry.find(subject.id), call, identity, signal);
      case 'drive': {
        await this.#checkExport(this.#exportBySerial(subject.serial), call, identity, signal);
        const uuid = await this.#uuidOf(subject.vmId, signal);
        const record = this.#driveIn(uuid, ({ drive }) => drive.serial === subject.serial);
        return this.#checkDrive(record, call, identity, signal);
      }
      case 'target': {
        const uuid = await this.#uuidOf(subject.vmId, signal);
        await this.#checkExport(this.#exportAt(uuid, subject.target), call, identity, signal);
        const record = this.#driveIn(uuid, ({ attachment }) => attachment.target === subject.target);
        return this.#checkDrive(record, call, identity, signal);
      }
      case 'backup': {
        const record = this.#context.backups.find(subject.id);
        if (record === undefined) return;
        const thing = { owner: record.owner, vmId: record.vm.uuid };
        return this.#checkOwned(`backup "${subject.id}"`, thing, call, identity, signal);
      }
      case 'job': {
        const record = this.#context.jobs.find(subject.id);
        if (record === undefined) return;
        const thing = { owner: record.owner, vmId: record.vm?.uuid ?? null };
        return this.#checkOwned(`job "${subject.id}"`, thing, call, identity, signal);
      }
    }
  }

  /** One that is not there counts as what it was called: who may not ask for it does not learn that. */
  async #checkVm(
    vmId: string,
    { verb, role }: { verb: string; role: Role },
    identity: Identity,
    signal: AbortSignal,
  ): Promise<void> {
    const domain = await findDomainIfAny(this.#context.libvirt, vmId, signal);
    const vm = domain ?? { uuid: vmId, name: vmId };
    if (isGranted(vm, role, identity)) return;
    throw refused(`${verb} needs the role ${role} for the VM "${vmId}"`, identity, { vmId });
  }

  /**
   * The format has to be the VM's own: read as qcow2, a raw disk would lead wherever its guest has written that it does.
   * @throws AgentError `WrongFormat` besides
   */
  async #checkPath(
    { path, format }: { path: string; format: string },
    { verb, role }: { verb: string; role: Role },
    identity: Identity,
    signal: AbortSignal,
  ): Promise<void> {
    const vms = await this.#vmsOf(path, signal);
    if (vms.length > 0 && vms.every((vm) => isGranted(vm, role, identity))) {
      const other = vms.find((vm) => vm.format !== format);
      if (other === undefined) return;
      throw new AgentError(
        'WrongFormat',
        `"${path}" is ${other.format} to ${other.name}; give that format, or have an admin read it as ${format}.`,
        { vmId: other.uuid },
      );
    }
    throw refused(
      vms.length === 0
        ? `${verb} of an image that is in no VM's chain needs the role admin`
        : `${verb} needs the role ${role} for the VM that "${path}" belongs to`,
      identity,
    );
  }

  /** A VM whose disk is missing would start from whatever is made at its path. */
  async #checkNewPath(
    path: string,
    { verb, role }: { verb: string; role: Role },
    identity: Identity,
    signal: AbortSignal,
  ): Promise<void> {
    const wanted = await realPathOf(path);
    for (const { domain, config } of await readAllDomains(this.#context.libvirt, signal)) {
      if (isGranted(domain, role, identity)) continue;
      for (const layer of config.disks.flatMap(({ source, backing }) => [source, ...backing])) {
        if (layer.path === null || (await realPathOf(layer.path)) !== wanted) continue;
        throw refused(`${verb} needs the role ${role} for the VM whose disk is to be at "${path}"`, identity);
      }
    }
  }

  /** The VMs that have the file in a disk's chain, as they run or are stored, each with the format that it has there. */
  async #vmsOf(path: string, signal: AbortSignal): Promise<(VmNames & { format: string })[]> {
    const file = await fileAt(path).catch(() => undefined);
    if (file === undefined) return [];
    const vms: (VmNames & { format: string })[] = [];
    for (const { domain, config } of await readAllDomains(this.#context.libvirt, signal)) {
      for (const layer of config.disks.flatMap(({ source, backing }) => [source, ...backing])) {
        const other = layer.path === null ? undefined : await fileAt(layer.path).catch(() => undefined);
        if (other === undefined || !isSameFile(file, other)) continue;
        vms.push({ uuid: domain.uuid, name: domain.name, format: layer.format ?? 'raw' });
      }
    }
    return vms;
  }

  async #checkExport(
    record: ExportRecord | undefined,
    call: { verb: string; role: Role; reads: boolean },
    identity: Identity,
    signal: AbortSignal,
  ): Promise<void> {
    if (record === undefined) return;
    const { exportId, owner, vm } = record;
    const thing = { owner, vmId: vm?.uuid ?? null };
    return this.#checkOwned(`export "${exportId}"`, thing, call, identity, signal, { exportId });
  }

  async #checkDrive(
    record: DriveRecord | undefined,
    call: { verb: string; role: Role; reads: boolean },
    identity: Identity,
    signal: AbortSignal,
  ): Promise<void> {
    if (record === undefined) return;
    const { owner, drive, attachment } = record;
    const thing = { owner, vmId: attachment.vm.uuid };
    return this.#checkOwned(`drive "${drive.name}"`, thing, call, identity, signal, { exportId: drive.name });
  }

  async #checkOwned(
    what: string,
    thing: Owned,
    { verb, reads }: { verb: string; reads: boolean },
    identity: Identity,
    signal: AbortSignal,
    about: { exportId?: string } = {},
  ): Promise<void> {
    if (thing.owner === identity.name) return;
    if (reads && (await this.sight(identity, signal))(thing)) return;
    const others = reads ? ', an observer of its VM' : '';
    throw refused(
      `${verb} of the ${what} is for the identity that made it${others} and the role admin`,
      identity,
      about,
    );
  }

  #exportBySerial(serial: string): ExportRecord | undefined {
    return this.#context.registry.allLive().find(({ drive }) => drive?.serial === serial);
  }

  #exportAt(uuid: string | null, target: string): ExportRecord | undefined {
    return this.#context.registry
      .allLive()
      .find(({ attachments }) => attachments.some(({ vm, target: at }) => at === target && vm.uuid === uuid));
  }

  #driveIn(uuid: string | null, isMeant: (record: DriveRecord) => boolean): DriveRecord | undefined {
    return this.#context.drives.allLive().find((one) => one.attachment.vm.uuid === uuid && isMeant(one));
  }

  /** As the verb itself will understand `vmId`: a UUID in capitals, or the name that the VM has now. Null without such a VM. */
  async #uuidOf(vmId: string, signal: AbortSignal): Promise<string | null> {
    return (await findDomainIfAny(this.#context.libvirt, vmId, signal))?.uuid ?? null;
  }

  /** The UUIDs of the VMs that grants are for; null: all. */
  async #uuidsOf(grants: readonly Grant[], signal: AbortSignal): Promise<ReadonlySet<string> | null> {
    const uuids = new Set<string>();
    for (const vm of new Set(grants.flatMap(({ vms }) => vms))) {
      if (vm === '*') return null;
      const domain = await findDomainIfAny(this.#context.libvirt, vm, signal);
      uuids.add(domain?.uuid ?? vm);
    }
    return uuids;
  }
}

const isObserving = ({ role }: Grant): boolean => role === 'observer';

function includes(uuids: ReadonlySet<string> | null, vmId: string | null | undefined): boolean {
  if (vmId === undefined || vmId === null) return false;
  return uuids === null || uuids.has(vmId);
}

function isGranted({ uuid, name }: VmNames, role: Role, { grants }: Identity): boolean {
  return grants.some(
    (grant) =>
      reaches(grant.role, role) &&
      grant.vms.some((vm) => vm === '*' || vm.toLowerCase() === uuid || vm === name),
  );
}

function refused(
  what: string,
  { name, grants }: Identity,
  about: { vmId?: string; exportId?: string } = {},
): AgentError {
  const has = grants
    .map(
      ({ role, vms }) =>
        `${role} for ${vms.length === 0 ? 'no VM' : vms.includes('*') ? 'all VMs' : vms.join(', ')}`,
    )
    .join('; ');
  return new AgentError(
    'NotAuthorized',
    `${what}; ${name} has ${has === '' ? 'none' : has}. Roles are given in [[roles]] of this host's configuration.`,
    about,
  );
}

/** Where a file is, or would be made: its directory's links resolved. */
async function realPathOf(path: string): Promise<string> {
  const directory = await realpath(dirname(path)).catch(() => dirname(path));
  return join(directory, basename(path));
}
