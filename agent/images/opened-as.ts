import { type ConfinedView, type Confinement, confinedName } from '../host/confine.js';
import type { HeldLayer } from './chain.js';

/** How a program gets at files that are held, and at no others by their names. */
export interface OpenedAs {
  /** The layers, each under the name by which the program opens it, as long as they are held. */
  layers: HeldLayer[];
  /** For a program that is confined: the view in which those names are. */
  confined?: ConfinedView;
}

/**
 * @param confinement null where the daemon is not root and can confine nothing: then the names are those of our own held
 *   descriptors, and whoever opens one opens that very file (proc(5), /proc/PID/fd)
 * @param view.write the top layer may be written to; those below it never
 * @param view.directory where the program makes its socket
 */
export function openedAs(
  layers: readonly HeldLayer[],
  confinement: Confinement | null,
  { write, directory }: { write: boolean; directory?: string },
): OpenedAs {
  const name = (layer: HeldLayer, i: number) => (confinement === null ? heldName(layer) : confinedName(i));
  const named = layers.map((layer, i) => ({ ...layer, path: name(layer, i) }));
  if (confinement === null) return { layers: named };
  const files = layers.map(({ path, id, isBlockDevice: device }, i) => ({
    path,
    id,
    write: write && i === 0,
    device,
  }));
  return {
    layers: named,
    confined: { confinement, files, ...(directory !== undefined && { directory }) },
  };
}

const heldName = ({ handle }: HeldLayer): string => `/proc/${process.pid}/fd/${handle.fd}`;

/** A message of such a program, with the files' own names in it. */
export function withOwnNames(message: string, layers: readonly HeldLayer[]): string {
  return message.replace(/\/images\/\d+|\/proc\/\d+\/fd\/\d+/g, (name) => {
    const own = layers.find((layer, i) => name === confinedName(i) || name === heldName(layer));
    return own?.path ?? name;
  });
}
