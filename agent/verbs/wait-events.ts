import type { Owned } from '../access/policy.js';
import type { Services } from './services.js';
import type { Verb } from './verb.js';

export const waitEvents =
  ({ eventWaits, access }: Services): Verb<'waitEvents'> =>
  async (params, call) => {
    const sees = await access.sight(call.identity, call.signal);
    // A page of which the caller may see nothing comes at once, too: its `next` is past what is not for them.
    const page = await eventWaits.wait(params, call);
    return { ...page, events: page.events.filter((event) => sees(event as Owned)) };
  };
