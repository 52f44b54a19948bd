/** Who calls, and what was granted to them. */

/** From the least to the most: each may what those before it may. */
export const ROLES = ['observer', 'backup', 'restore', 'admin'] as const;
export type Role = (typeof ROLES)[number];

/** A role, and the VMs that it is for: UUIDs or names; `*` is all of them. */
export interface Grant {
  readonly role: Role;
  readonly vms: readonly string[];
}

export interface Identity {
  /** `unix`: whoever can open the UNIX socket. */
  readonly kind: 'unix' | 'certificate';
  /** How the owner of what it makes is named in records, lists and logs. */
  readonly name: string;
  readonly grants: readonly Grant[];
}

/** Whoever can open the UNIX socket is admin: its group equals root over every disk. */
export const unixIdentity: Identity = {
  kind: 'unix',
  name: 'unix',
  grants: [{ role: 'admin', vms: ['*'] }],
};

export function isAdmin({ grants }: Identity): boolean {
  return grants.some(({ role }) => role === 'admin');
}

/** Whether a role is at least that one. */
export function reaches(role: Role, wanted: Role): boolean {
  return ROLES.indexOf(role) >= ROLES.indexOf(wanted);
}
