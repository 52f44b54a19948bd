import type { ExportsContext } from './context.js';

/**
 * Records that may not say where a drive is any more: each is compared with what libvirt says, by whoever made this, and
 * stays due until that has come off. One at a time each, and none while libvirt is away.
 */
export class Comparisons {
  readonly #context: Pick<ExportsContext, 'libvirt' | 'log'>;
  readonly #idName: string;
  readonly #compare: (id: string) => Promise<void>;
  readonly #due = new Set<string>();
  readonly #running = new Set<string>();

  /** @param idName what the id is called in the log */
  constructor(
    context: Pick<ExportsContext, 'libvirt' | 'log'>,
    idName: string,
    compare: (id: string) => Promise<void>,
  ) {
    this.#context = context;
    this.#idName = idName;
    this.#compare = compare;
  }

  add(id: string): void {
    this.#due.add(id);
  }

  /** Begins what is due. To be called again and again. */
  run(): void {
    const { libvirt, log } = this.#context;
    if (!libvirt.status.connected) return;
    for (const id of this.#due) {
      if (this.#running.has(id)) continue;
      this.#due.delete(id);
      this.#running.add(id);
      void this.#compare(id)
        .catch((err: unknown) => {
          this.#due.add(id);
          log.warn({ [this.#idName]: id, err }, 'could not ask libvirt where the drive is; will ask again');
        })
        .finally(() => this.#running.delete(id));
    }
  }
}
