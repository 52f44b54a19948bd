/** What has passed through the gateway for one export, since it was first asked for. */
export interface ExportTraffic {
  /** Connections now. */
  clients: number;
  /** Bytes to and from clients. */
  sent: number;
  received: number;
}

/** Clients and bytes by export. */
export class Traffic {
  readonly #byExport = new Map<string, ExportTraffic>();

  /** Takes a place among the clients of an export. False: all are taken. */
  enter(exportId: string, places: number): boolean {
    const traffic = this.of(exportId);
    if (traffic.clients >= places) return false;
    traffic.clients++;
    return true;
  }

  leave(exportId: string): void {
    this.of(exportId).clients--;
  }

  of(exportId: string): ExportTraffic {
    const known = this.#byExport.get(exportId);
    if (known !== undefined) return known;
    const traffic = { clients: 0, sent: 0, received: 0 };
    this.#byExport.set(exportId, traffic);
    return traffic;
  }

  /** Forgets the exports that are gone and have no clients. */
  keep(isThere: (exportId: string) => boolean): void {
    for (const [exportId, { clients }] of this.#byExport) {
      if (clients === 0 && !isThere(exportId)) this.#byExport.delete(exportId);
    }
  }

  all(): Record<string, ExportTraffic> {
    return Object.fromEntries(this.#byExport);
  }
}
