import { readFile } from 'node:fs/promises';
import { AgentError } from '../errors.js';

/** The number of a local account. @throws AgentError `NotAuthorized` where this host has none of that name */
export async function uidOf(account: string): Promise<number> {
  return idOf('/etc/passwd', 'account', account);
}

/** The number of a local group. @throws AgentError `NotAuthorized` where this host has none of that name */
export async function gidOf(group: string): Promise<number> {
  return idOf('/etc/group', 'group', group);
}

/** Both files have the name first and the number third: passwd(5), group(5). */
async function idOf(file: string, what: string, name: string): Promise<number> {
  for (const line of (await readFile(file, 'utf8')).split('\n')) {
    const [entry, , id] = line.split(':');
    if (entry === name && id !== undefined) return Number(id);
  }
  throw new AgentError(
    'NotAuthorized',
    `The ${what} "${name}" is not in ${file} on this host; name a local ${what}, or create it.`,
  );
}
