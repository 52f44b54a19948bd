/** Messages that were understood as messages and otherwise left alone: a newer daemon may send more than we know. */
export interface IgnoredMessages {
  /** Of a serial that no call has. */
  unknownReplies: number;
  /** To calls whose caller had given up. */
  lateReplies: number;
  /** Of an unknown procedure, or not decodable. */
  events: number;
  /** Of programs or versions other than libvirt's own and keepalive. */
  programs: number;
  /** Streams, file descriptors, and types to come. */
  types: number;
}

/** All zero. */
export function nothingIgnored(): IgnoredMessages {
  return { unknownReplies: 0, lateReplies: 0, events: 0, programs: 0, types: 0 };
}
