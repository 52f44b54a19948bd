import type { Config } from '../config/config.js';
import { canonicalIdentity, identityText } from '../tls/identities.js';
import type { Identity } from './identity.js';

/** The roles of the configuration, by whom they are for. */
export class RoleTable {
  /** With each row's identity as it is compared. */
  #rows: readonly (Config['roles'][number] & { canonical: string })[] = [];
  #generation = 0;

  constructor(rows: Config['roles']) {
    this.reload(rows);
  }

  /** From now on these; also for who is connected, from its next call on. */
  reload(rows: Config['roles']): void {
    this.#rows = rows.map((row) => ({ ...row, canonical: canonicalIdentity(row.identity) }));
    this.#generation += 1;
  }

  /**
   * Who bears these identities: all rows of the configuration that name one of them count. The first of them names the
   * caller, so that what it owns stays its own when rows are added after it.
   * @param identities as `identitiesOf` has them
   * @returns as the table is whenever it is looked at, so that a connection does not keep a role that was taken away; with no
   * grants where no row names it: such a caller learns from each answer how it is called here
   */
  callerOf(identities: ReadonlySet<string>): Identity {
    const found = () => {
      const rows = this.#rows.filter(({ canonical }) => identities.has(canonical));
      const name = rows[0]?.identity ?? [...identities].map(identityText).join(' ');
      return {
        generation: this.#generation,
        name,
        grants: rows.map(({ role, vms }) => ({ role, vms })),
      };
    };
    let known = found();
    // A list asks for each of its things.
    const current = () => {
      if (known.generation !== this.#generation) known = found();
      return known;
    };
    return {
      kind: 'certificate',
      get name() {
        return current().name;
      },
      get grants() {
        return current().grants;
      },
    };
  }
}
