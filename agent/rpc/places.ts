/** Places for callers from the network, and what there is for those who come when none is left. */
import type { Socket } from 'node:net';
import type { Identity } from '../access/identity.js';
import { AgentError } from '../errors.js';
import type { EdgeLimits } from './limits.js';

export interface PlacesOptions {
  readonly clients: number;
  readonly edge: Pick<EdgeLimits, 'guests' | 'guestSeconds'>;
}

/**
 * Who has a role has one of `clients` places for as long as it likes. Beyond them some are guests for some seconds, and so are
 * those without a role, whose places are others: a certificate alone keeps nobody out.
 */
export class Places {
  readonly #options: PlacesOptions;
  #clients = 0;
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
    const { clients } = this.#options;
    if (grants.length === 0) {
      if (!this.#strangers.enter(socket, name)) {
        throw new Error('as many clients without a role are connected as may be');
      }
      return undefined;
    }
    if (this.#clients < clients) {
      this.#clients++;
      socket.once('close', () => this.#clients--);
      return undefined;
    }
    if (!this.#late.enter(socket, name)) {
      throw new Error(`${clients} clients are connected, which is the limit, and its guests`);
    }
    return tooManyClients(clients);
  }
}

export function tooManyClients(clients: number): AgentError {
  return new AgentError(
    'LimitReached',
    `${clients} clients are connected, which is the limit; try again when some have left, or raise [limits] clients.`,
  );
}

class Guests {
  readonly #edge: PlacesOptions['edge'];
  #count = 0;
  readonly #byName = new Map<string, number>();

  constructor(edge: PlacesOptions['edge']) {
    this.#edge = edge;
  }

  /** Whether there is a place; half of them at most are one caller's. */
  enter(socket: Socket, name: string): boolean {
    const { guests, guestSeconds } = this.#edge;
    const own = this.#byName.get(name) ?? 0;
    if (this.#count >= guests || own >= Math.ceil(guests / 2)) return false;
    this.#count++;
    this.#byName.set(name, own + 1);
    const stay = setTimeout(() => socket.destroy(), guestSeconds * 1000);
    socket.once('close', () => {
      clearTimeout(stay);
      this.#count--;
      const left = (this.#byName.get(name) ?? 1) - 1;
      if (left === 0) this.#byName.delete(name);
      else this.#byName.set(name, left);
    });
    return true;
  }
}
