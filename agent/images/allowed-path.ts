import { realpath } from 'node:fs/promises';
import { isAbsolute, sep } from 'node:path';
import { AgentError } from '../errors.js';

/**
 * The real path (all links resolved) of an image, which must lie under one of the allowed roots.
 * @param namedBy the image whose header names this one as its backing file
 * @throws AgentError `PathNotAllowed`, `NoSuchImage`
 */
export async function allowedRealPath(
  path: string,
  roots: readonly string[],
  namedBy?: string,
): Promise<string> {
  const origin = namedBy === undefined ? '' : `, which ${namedBy} names as its backing file,`;
  if (!isAbsolute(path) || path.includes('\0')) {
    throw new AgentError('PathNotAllowed', `The image path "${path}" is not absolute; give the whole path.`);
  }
  let real: string;
  try {
    real = await realpath(path);
  } catch (cause) {
    throw new AgentError(
      'NoSuchImage',
      `The image ${path}${origin} cannot be found; check the path and its mount.`,
      {
        cause,
      },
    );
  }
  for (const root of roots) {
    const realRoot = await realpath(root).catch(() => root);
    if (real.startsWith(realRoot.endsWith(sep) ? realRoot : realRoot + sep)) return real;
  }
  throw new AgentError(
    'PathNotAllowed',
    `The image ${real}${origin} lies under none of the allowed roots (${roots.join(', ') || 'there are none'}); ` +
      (namedBy === undefined
        ? 'add its directory to [images] allowedRoots.'
        : 'if that name is to be trusted, add its directory to [images] allowedRoots.'),
  );
}
