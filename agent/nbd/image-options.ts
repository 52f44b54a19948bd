type Json = string | number | boolean | null | readonly Json[] | ImageOptions;

/**
 * A node of QEMU's block graph, as `blockdev-add` and the `json:` pseudo-protocol take it, with every node below:
 * `{driver: "qcow2", file: {driver: "file", filename}, backing: {…} | null}`.
 */
export type ImageOptions = { readonly [option: string]: Json };

/** Bytes of one argument of a program, Linux' MAX_ARG_STRLEN. */
const maxArgument = 128 * 1024 - 1;

/**
 * The `json:{…}` file name of a block graph. qemu-nbd 7.2 to 10 take whole nested graphs in this way alone:
 * `--image-opts` knows no null, by which a chain ends. TypeError for a graph that would leave anything to an image's
 * header or to probing: a node without its driver, or a qcow2 node that does not say what backs it.
 */
export function imageFileName(image: ImageOptions): string {
  assertExplicit(image, 'image');
  const name = `json:${JSON.stringify(image)}`;
  if (Buffer.byteLength(name) > maxArgument)
    throw new TypeError('The backing chain is too long to be described.');
  return name;
}

function assertExplicit(node: ImageOptions, path: string): void {
  if (typeof node.driver !== 'string') throw new TypeError(`${path} names no driver.`);
  if (node.driver === 'qcow2' && node.backing === undefined) {
    throw new TypeError(`${path} does not say what backs it; null for nothing.`);
  }
  for (const [option, value] of Object.entries(node)) {
    // A file or backing given as a string is a reference or a name, which QEMU would open in its own way.
    const isChild = option === 'file' || option === 'backing' || option === 'data-file' || option === 'image';
    if (isChild && typeof value === 'string') throw new TypeError(`${path}.${option} is not a node.`);
    if (isNode(value) && isChild) assertExplicit(value, `${path}.${option}`);
  }
}

function isNode(value: Json | undefined): value is ImageOptions {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
