import type { Config } from '../config/config.js';
import { canonicalIdentity, identityText } from '../tls/identities.js';
import type { Identity } from './identity.js';

/** The roles of the configuration, by whom they are for. */
export class RoleTable {
  #rows: Config['roles'];

  constructor(rows: Config['roles']) {
    this.#rows = rows;
  }

  /** From now on these; also for who is connected, from its next call on. */
  reload(rows: Config['roles']): void {
    this.#rows = rows;
  }

  /**
   * Who bears these identities: all rows of the configuration that name one of them count. The first of them names the
   * caller, so that what it owns stays its own when rows are added after it.
   * @param identities as `identitiesOf` has them
   * @returns as the table is whenever it is looked at, so that a connection does not keep a role that was taken away; with no grants where no row does: such a caller learns from each answer how it is called here
   */
  callerOf(identities: ReadonlySet<string>): Identity {
    const rows = () => this.#rows.filter(({ identity }) => identities.has(canonicalIdentity(identity)));
    return {
      kind: 'certificate',
      get name() {
        return rows()[0]?.identity ?? [...identities].map(identityText).join(' ');
      },
      get grants() {
        return rows().map(({ role, vms }) => ({ role, vms }));
      },
    };
  }
}
