/** Places for callers from the network, and what there is for those who come when none is left. */
import type { Socket } from 'node:net';
import type { Identity } from '../access/identity.js';
import { AgentError } from '../errors.js';
import type { EdgeLimits } from './limits.js';

export interface PlacesOptions {
  readonly clients: number;
  readonly clientsPerIdentity: number;
  readonly edge: Pick<EdgeLimits, 'guests' | 'guestSeconds'>;
}

/**
 * Who has a role has one of `clients` places for as long as it likes, and no more than its own share of them. Beyond that some
 * are guests for some seconds, and so are those without a role, whose places are others: no certificate keeps others out.
 */
export class Places {
  readonly #options: PlacesOptions;
  #clients = 0;
  readonly #byName = new Counts();
  readonly #late: Guests;
  readonly #strangers: Guests;

  constructor(options: PlacesOptions) {
    this.#options = options;
    this.#late = new Guests(options.edge);
    this.#strangers = new Guests(options.edge);
  }

  /**
   * Takes a place until the socket closes; a guest's is closed when its time is over.
   * @returns what all verbs but those that are always admitted are answered with; undefined: none
   * @throws Error whose message says why there is not even a guest's place
   */
  enter(socket: Socket, { name, grants }: Identity): AgentError | undefined {
    const { clients, clientsPerIdentity } = this.#options;
    if (grants.length === 0) {
      if (!this.#strangers.enter(socket, name)) {
        throw new Error('as many clients without a role are connected as may be');
      }
      return undefined;
    }
    const hasShare = this.#byName.of(name) < clientsPerIdentity;
    if (this.#clients < clients && hasShare) {
      this.#clients++;
      this.#byName.add(name);
      socket.once('close', () => {
        this.#clients--;
        this.#byName.remove(name);
      });
      return undefined;
    }
    if (!this.#late.enter(socket, name)) {
      const who = hasShare ? `${clients} clients` : `${clientsPerIdentity} clients of ${name}`;
      throw new Error(`${who} are connected, which is the limit, and its guests`);
    }
    return hasShare ? tooManyClients(clients) : tooManyOfOne(name, clientsPerIdentity);
  }
}

export function tooManyClients(clients: number): AgentError {
  return new AgentError(
    'LimitReached',
    `${clients} clients are connected, which is the limit; try again when some have left, or raise [limits] clients.`,
  );
}

function tooManyOfOne(name: string, clientsPerIdentity: number): AgentError {
  return new AgentError(
    'LimitReached',
    `${clientsPerIdentity} clients of ${name} are connected, which is the limit for one identity; end some of them, or raise ` +
      '[limits] clientsPerIdentity.',
  );
}

/** How many there are of each name. */
class Counts {
  readonly #counts = new Map<string, number>();

  of(name: string): number {
    return this.#counts.get(name) ?? 0;
  }

  add(name: string): void {
    this.#counts.set(name, this.of(name) + 1);
  }

  remove(name: string): void {
    const left = this.of(name) - 1;
    if (left > 0) this.#counts.set(name, left);
    else this.#counts.delete(name);
  }
}

class Guests {
  readonly #edge: PlacesOptions['edge'];
  #count = 0;
  readonly #byName = new Counts();

  constructor(edge: PlacesOptions['edge']) {
    this.#edge = edge;
  }

  /** Whether there is a place; half of them at most are one caller's. */
  enter(socket: Socket, name: string): boolean {
    const { guests, guestSeconds } = this.#edge;
    if (this.#count >= guests || this.#byName.of(name) >= Math.ceil(guests / 2)) return false;
    this.#count++;
    this.#byName.add(name);
    const stay = setTimeout(() => socket.destroy(), guestSeconds * 1000);
    socket.once('close', () => {
      clearTimeout(stay);
      this.#count--;
      this.#byName.remove(name);
    });
    return true;
  }
}
