/**
 * The frames of the handshake phase, both ways: a client uses the one half, a server (a TLS gateway) the other.
 * What the frames carry is in negotiation-data.ts. proto.md "Newstyle negotiation", "Fixed newstyle negotiation".
 */
import {
  INIT_PASSWD,
  isErrorReply,
  OLDSTYLE_MAGIC,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  Reply,
} from './constants.js';
import { NbdError, protocolError } from './error.js';
import { maxOptionData } from './limits.js';
import { PayloadReader, u16, u32, u64 } from './payload.js';

const section = 'newstyle negotiation';

/** Bytes of the server's greeting: 64 bits NBDMAGIC, 64 bits IHAVEOPT, 16 bits handshake flags. */
export const greetingLength = 18;

export function encodeGreeting(handshakeFlags: number): Buffer {
  return Buffer.concat([u64(INIT_PASSWD, OPTION_MAGIC), u16(handshakeFlags)]);
}

/** The handshake flags of a greeting. `unsupported` for a server of the oldstyle, which knows no options. */
export function decodeGreeting(bytes: Buffer): number {
  const reader = new PayloadReader(section, bytes);
  if (reader.u64() !== INIT_PASSWD) throw protocolError(section, 'the greeting is not one of NBD');
  const magic = reader.u64();
  if (magic === OLDSTYLE_MAGIC) {
    throw new NbdError(
      'unsupported',
      'The NBD server speaks the oldstyle protocol only, which has no options.',
    );
  }
  if (magic !== OPTION_MAGIC) throw protocolError(section, 'the greeting is not one of NBD');
  const flags = reader.u16();
  reader.end();
  return flags;
}

/** Bytes of the client's answer to the greeting: 32 bits client flags. */
export const clientFlagsLength = 4;

export function encodeClientFlags(flags: number): Buffer {
  return u32(flags);
}

export function decodeClientFlags(bytes: Buffer): number {
  const reader = new PayloadReader('client flags', bytes);
  const flags = reader.u32();
  reader.end();
  return flags;
}

/** The head of an option, client to server; `length` bytes of data follow. */
export interface OptionHeader {
  readonly option: number;
  readonly length: number;
}

/** Bytes of that head: 64 bits IHAVEOPT, 32 bits option, 32 bits length of the data. */
export const optionHeaderLength = 16;

export function encodeOption(option: number, data: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([u64(OPTION_MAGIC), u32(option, data.length), data]);
}

/**
 * Refuses data longer than `maxOptionData` as a protocol error: a server that would rather answer
 * `NBD_REP_ERR_TOO_BIG` would still have to read it all.
 */
export function decodeOptionHeader(bytes: Buffer): OptionHeader {
  const reader = new PayloadReader(section, bytes);
  if (reader.u64() !== OPTION_MAGIC) throw protocolError(section, 'an option does not begin with IHAVEOPT');
  const option = reader.u32();
  const length = checkLength(reader.u32());
  reader.end();
  return { option, length };
}

/** The head of a reply to an option, server to client; `length` bytes of data follow. */
export interface OptionReplyHeader {
  /** The option to which this is a reply. */
  readonly option: number;
  readonly type: number;
  readonly length: number;
}

/** Bytes of that head: 64 bits magic, 32 bits option, 32 bits reply type, 32 bits length of the data. */
export const optionReplyHeaderLength = 20;

export function encodeOptionReply(option: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([u64(OPTION_REPLY_MAGIC), u32(option, type, data.length), data]);
}

export function decodeOptionReplyHeader(bytes: Buffer): OptionReplyHeader {
  const reader = new PayloadReader('option replies', bytes);
  if (reader.u64() !== OPTION_REPLY_MAGIC) {
    throw protocolError('option replies', 'a reply does not begin with its magic number');
  }
  const option = reader.u32();
  const type = reader.u32();
  const length = checkLength(reader.u32());
  reader.end();
  return { option, type, length };
}

/** Whether more replies to the same option follow this one: an ACK or an error is the last. */
export function isFinalReply(type: number): boolean {
  return type === Reply.ACK || isErrorReply(type);
}

function checkLength(length: number): number {
  if (length > maxOptionData) throw protocolError(section, `${length} bytes of data in one message`);
  return length;
}
