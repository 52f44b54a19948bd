/**
 * Numbers of the NBD protocol, under the specification's own names without their `NBD_`.
 * Source: doc/proto.md of github.com/NetworkBlockDevice/nbd, the sections named; for what is marked EXTENDED_HEADERS
 * the same file on its branch extension-ext-header.
 */

/** "Newstyle negotiation": ASCII `NBDMAGIC`, then `IHAVEOPT`. */
export const INIT_PASSWD = 0x4e42444d41474943n;
export const OPTION_MAGIC = 0x49484156454f5054n;
/** "Oldstyle negotiation": what stands in the place of `IHAVEOPT` there. */
export const OLDSTYLE_MAGIC = 0x00420281861253n;
/** "Fixed newstyle negotiation": before each reply to an option. */
export const OPTION_REPLY_MAGIC = 0x3e889045565a9n;

/** "Request message", "Simple reply message", "Structured reply chunk message". */
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef;
/** EXTENDED_HEADERS: "Request message", "Extended reply chunk message". */
export const EXTENDED_REQUEST_MAGIC = 0x21e41c71;
export const EXTENDED_REPLY_MAGIC = 0x6e8a278c;

/** "Handshake flags", sent by the server, and "Client flags". */
export const HandshakeFlag = { FIXED_NEWSTYLE: 1 << 0, NO_ZEROES: 1 << 1 } as const;
export const ClientFlag = { FIXED_NEWSTYLE: 1 << 0, NO_ZEROES: 1 << 1 } as const;

/** "Transmission flags". */
export const TransmissionFlag = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  ROTATIONAL: 1 << 4,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  SEND_DF: 1 << 7,
  CAN_MULTI_CONN: 1 << 8,
  SEND_RESIZE: 1 << 9,
  SEND_CACHE: 1 << 10,
  SEND_FAST_ZERO: 1 << 11,
  /** EXTENDED_HEADERS */
  BLOCK_STATUS_PAYLOAD: 1 << 12,
} as const;

/** "Option types". 4 was PEEK_EXPORT, withdrawn. */
export const Option = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  /** EXTENDED_HEADERS */
  EXTENDED_HEADERS: 11,
} as const;

/** "Option reply types"; bit 31 marks the errors. */
export const Reply = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x80000001,
  ERR_POLICY: 0x80000002,
  ERR_INVALID: 0x80000003,
  ERR_PLATFORM: 0x80000004,
  ERR_TLS_REQD: 0x80000005,
  ERR_UNKNOWN: 0x80000006,
  ERR_SHUTDOWN: 0x80000007,
  ERR_BLOCK_SIZE_REQD: 0x80000008,
  ERR_TOO_BIG: 0x80000009,
  /** EXTENDED_HEADERS */
  ERR_EXT_HEADER_REQD: 0x8000000a,
} as const;

/** "Option reply types", `NBD_REP_INFO`: the information types. */
export const Info = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

/** "Request types". */
export const Command = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;

/** "Structured reply flags" and "Structured reply types"; bit 15 marks the error chunks. */
export const REPLY_FLAG_DONE = 1 << 0;
export const Chunk = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  /** EXTENDED_HEADERS */
  BLOCK_STATUS_EXT: 6,
  ERROR: 0x8001,
  ERROR_OFFSET: 0x8002,
} as const;

/** "Error values". */
export const ErrorValue = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

/** "`base:allocation` metadata context": the bits of its status. */
export const State = { HOLE: 1 << 0, ZERO: 1 << 1 } as const;

/** IANA's port for NBD, uri.md "NBD URI authority". */
export const DEFAULT_PORT = 10809;

const replyNames = new Map<number, string>(
  Object.entries(Reply).map(([name, type]) => [type, `NBD_REP_${name}`]),
);
const errorNames = new Map<number, string>(
  Object.entries(ErrorValue).map(([name, value]) => [value, `NBD_${name}`]),
);
const optionNames = new Map<number, string>(
  Object.entries(Option).map(([name, type]) => [type, `NBD_OPT_${name}`]),
);

/** For messages: `NBD_REP_ERR_UNKNOWN`, or the number of a type that the specification does not know. */
export function replyName(type: number): string {
  return replyNames.get(type) ?? `NBD_REP 0x${type.toString(16)}`;
}

export function optionName(option: number): string {
  return optionNames.get(option) ?? `NBD_OPT ${option}`;
}

/** "The client SHOULD treat an unexpected error value as if it had been NBD_EINVAL". */
export function errorName(value: number): string {
  return errorNames.get(value) ?? 'NBD_EINVAL';
}

export function isErrorReply(type: number): boolean {
  return type >= 0x80000000;
}
