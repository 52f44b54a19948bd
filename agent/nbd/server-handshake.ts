/** The server's side of the handshake phase: what is read and written in turn. proto.md "Handshake". */
import type { Connection } from './connection.js';
import { ClientFlag, HandshakeFlag, Reply } from './constants.js';
import { NbdError, protocolError } from './error.js';
import { maxString } from './limits.js';
import {
  clientFlagsLength,
  decodeClientFlags,
  decodeOptionHeader,
  encodeGreeting,
  encodeOptionReply,
  optionHeaderLength,
} from './negotiation.js';

/** An option as a client sent it. */
export interface OptionRequest {
  readonly option: number;
  readonly data: Buffer;
}

/**
 * Greets a client and reads its flags. "The server MUST … drop the TCP connection" where it sets others than those
 * that were offered; a client that does not know fixed newstyle could not be told that it is refused.
 * @returns whether the 124 zeroes after NBD_OPT_EXPORT_NAME are left out
 */
export async function offer(connection: Connection): Promise<{ noZeroes: boolean }> {
  connection.write(encodeGreeting(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES));
  const flags = decodeClientFlags(await connection.read(clientFlagsLength));
  if ((flags & ~(ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES)) !== 0) {
    throw protocolError('client flags', `flags 0x${(flags >>> 0).toString(16)}, which were not offered`);
  }
  if ((flags & ClientFlag.FIXED_NEWSTYLE) === 0) {
    throw new NbdError('unsupported', 'The NBD client does not speak fixed newstyle.');
  }
  return { noZeroes: (flags & ClientFlag.NO_ZEROES) !== 0 };
}

/** The next option. NbdError `protocol` for one whose data is longer than `maxOptionData`: that is not read. */
export async function readOption(connection: Connection): Promise<OptionRequest> {
  const { option, length } = decodeOptionHeader(await connection.read(optionHeaderLength));
  return { option, data: await connection.read(length) };
}

/** One reply to an option; the client may have to wait for more. */
export function reply(connection: Connection, option: number, type: number, data?: Buffer): void {
  connection.write(encodeOptionReply(option, type, data));
}

export function acknowledge(connection: Connection, option: number): void {
  reply(connection, option, Reply.ACK);
}

/** Refuses an option. `text` is for human eyes: "The data MAY contain a UTF-8 string". */
export function refuse(connection: Connection, option: number, type: number, text: string): void {
  reply(connection, option, type, Buffer.from(text, 'utf8').subarray(0, maxString));
}
