/** What a line, a body or a WebSocket message holds: one JSON value in UTF-8. */
import { isUtf8 } from 'node:buffer';

/** Undefined: it is not that. */
export function parsed(bytes: Buffer): { value: unknown } | undefined {
  if (!isUtf8(bytes)) return undefined;
  try {
    return { value: JSON.parse(bytes.toString('utf8')) as unknown };
  } catch {
    return undefined;
  }
}

/** How many calls a message counts as: those of a batch are at work all at once. */
export function callsOf(message: unknown): number {
  return Array.isArray(message) ? Math.max(1, message.length) : 1;
}
