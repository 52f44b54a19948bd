import type { Verbs } from '../api/generated.js';
import { canonical } from '../host/canonical.js';
import { CallsInFlight } from '../host/once.js';
import type { Verb, VerbName } from './verb.js';

/**
 * The verb, of which identical calls at the same time are one: a retry after a lost connection gets the answer of the first,
 * which is still at work, and not the word that the VM is busy with it.
 */
export function joining<N extends VerbName>(verb: Verb<N>): Verb<N> {
  const inFlight = new CallsInFlight<Verbs[N]['result']>();
  return (params, call) => {
    const request = canonical({ caller: call.identity.name, params });
    const conflict = () => new Error('the whole request is the id');
    return inFlight.run(request, request, () => verb(params, call), conflict);
  };
}
