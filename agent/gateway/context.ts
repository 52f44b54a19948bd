import type { Config } from '../config/config.js';
import type { BootClock } from '../host/boot-clock.js';
import type { Log } from '../log.js';
import type { HalfOpen, Stranger } from '../tls/half-open.js';
import type { RefusalLog } from '../tls/refusal-log.js';
import type { EntryCache } from './entry-cache.js';
import type { Traffic } from './traffic.js';

/** A client whose connection can be ended. */
export interface Client extends Stranger {
  /** Ends the connection if the client may not have it any more, or takes nothing of what is sent to it. */
  check(): void;
}

/** What the sessions work with. */
export interface GatewayContext {
  /** What the daemon has put there. */
  readonly entries: EntryCache;
  readonly settings: Config['gateway'];
  readonly clock: BootClock;
  readonly log: Log;
  readonly refusals: RefusalLog;
  readonly traffic: Traffic;
  readonly halfOpen: HalfOpen;
  /** A client has shown who it is. Idempotent. @throws Refusal where there is no place for it */
  admit(client: Client): void;
}
