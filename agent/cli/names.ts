/** `prepareBackupDisk` → `prepare-backup-disk`, `rpc.discover` → `rpc-discover`: verbs and params as they are typed. */
export function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`).replaceAll('.', '-');
}

/** Text of a schema for a terminal: what it quotes of params and verbs as they are typed, all else without marks. */
export function plain(text: string, params: readonly string[], verbs: readonly string[]): string {
  return text.replace(/`([^`]*)`(:?)/g, (_, quoted: string, colon: string) => {
    // What a colon follows is a member of an answer.
    if (colon !== '') return `${quoted}:`;
    if (params.includes(quoted)) return `--${kebab(quoted)}`;
    return verbs.includes(quoted) ? kebab(quoted) : quoted;
  });
}
