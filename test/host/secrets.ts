/** The keys that a daemon under test gave out, and where else they turned up: everywhere is wrong but in the gateway's own files. */
import { lstatSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The only place, below a host's directory: open to root alone. */
const KEPT_IN = /^run\/vmdiskd\/gateway\/exports\/[^/]+$/;
/** Below it lie what guests boot from, their disks, and files in which tests hand keys to clients. */
const LOOKED_AT = ['run', 'var/lib/vmdiskd', 'var/log', 'var/lib/libvirt/qemu'];
/** No log, record or socket of a test is larger. */
const MOST_BYTES = 64 << 20;

export class Secrets {
  readonly #keys = new Set<string>();
  readonly #told: string[] = [];

  get count(): number {
    return this.#keys.size;
  }

  /** A line that the daemon answered with: what it hands out it may hand out here, and what it once did nowhere else. */
  answered(method: string, line: string): void {
    const given = /"credentials":\{[^{}]*"key":"([^"]+)"/.exec(line)?.[1];
    if (given !== undefined && /^(prepareBackupDisk|mountDisk)$/.test(method)) this.#keys.add(given);
    else for (const place of this.in(line)) this.#told.push(`the answer to ${method}, as ${place}`);
  }

  /** In which forms a text has one of the keys. */
  in(text: string): string[] {
    const found: string[] = [];
    for (const key of this.#keys) {
      const bytes = Buffer.from(key, 'hex');
      const forms = { hex: key, HEX: key.toUpperCase(), base64: bytes.toString('base64').replace(/=+$/, '') };
      for (const [form, words] of Object.entries(forms)) {
        if (words !== '' && text.includes(words)) found.push(`${form} of ${key.slice(0, 8)}…`);
      }
    }
    return found;
  }

  /**
   * Where a key is that should not be: in an answer, in what the programs have written, in a file of the host.
   * @param outputs of the daemon, the gateway and whatever else ran, by name
   */
  leaks(dir: string, outputs: ReadonlyMap<string, string>): string[] {
    const found = [...this.#told];
    if (this.#keys.size === 0) return found;
    for (const [name, output] of outputs) for (const form of this.in(output)) found.push(`${name}: ${form}`);
    for (const below of LOOKED_AT) {
      for (const file of filesBelow(dir, below)) {
        const { mode, uid, size } = lstatSync(join(dir, file));
        if (size > MOST_BYTES) continue;
        const forms = this.in(readFileSync(join(dir, file), 'latin1'));
        const kept = KEPT_IN.test(file) && (mode & 0o777) === 0o600 && uid === 0;
        if (forms.length > 0 && !kept)
          found.push(`${file} (${(mode & 0o777).toString(8)}, uid ${uid}): ${forms}`);
      }
    }
    return found;
  }
}

function filesBelow(dir: string, below: string): string[] {
  try {
    return readdirSync(join(dir, below), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(dir.length + 1));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
