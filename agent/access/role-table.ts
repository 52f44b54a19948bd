import type { Config } from '../config/config.js';
import { canonicalIdentity, identityText } from '../tls/identities.js';
import type { Identity } from './identity.js';

/** The roles of the configuration, by whom they are for. */
export class RoleTable {
  readonly #rows: Config['roles'];

  constructor(rows: Config['roles']) {
    this.#rows = rows;
  }

  /**
   * Who bears these identities: all rows of the configuration that name one of them count. The first of them names the
   * caller, so that what it owns stays its own when rows are added after it.
   * @param identities as `identitiesOf` has them
   * @returns with no grants where no row does: such a caller learns from each answer how it is called here
   */
  callerOf(identities: ReadonlySet<string>): Identity {
    const rows = this.#rows.filter(({ identity }) => identities.has(canonicalIdentity(identity)));
    const [first] = rows;
    return {
      kind: 'certificate',
      name: first?.identity ?? [...identities].map(identityText).join(' '),
      grants: rows.map(({ role, vms }) => ({ role, vms })),
    };
  }
}
