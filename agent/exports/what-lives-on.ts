import type { ExportsContext } from './context.js';

/** What the daemon's end leaves running, and how it is ended, as one line for its operator. */
export function whatLivesOn({
  registry,
  backups,
  jobs,
}: Pick<ExportsContext, 'registry' | 'backups' | 'jobs'>): string {
  const exports = registry.allLive().length;
  const points = backups.allLive().filter(({ exportId }) => exportId === null).length;
  const merges = jobs.allLive().filter(({ work }) => work === 'deleteSnapshot').length;
  if (exports + points + merges === 0) return 'stopping; no export, backup or merge lives on';
  const those = [counted(exports, 'export'), counted(points, 'backup'), counted(merges, 'merge')].join(', ');
  if (exports + points === 0) return `stopping; ${those} live on`;
  return `stopping; ${those} live on; \`vmdiskctl drain --wait\`, with vmdiskd running, ends exports and backups`;
}

const counted = (number: number, what: string): string => `${number} ${what}${number === 1 ? '' : 's'}`;
