/**
 * libvirt's messages: a length word, a header of six words, a payload (src/rpc/virnetprotocol.x).
 *
 *     length  total bytes, this word included
 *     prog    which program: libvirt's own, keepalive, ...
 *     vers    its version
 *     proc    the procedure within the program
 *     type    call, reply, message (event), stream
 *     serial  a call's number, repeated in its reply; 0 in events
 *     status  0 done, 1 an error follows, 2 more of a stream follows
 *     payload by procedure
 */
import { XdrError, XdrReader, XdrWriter } from './xdr.js';

/** REMOTE_PROGRAM (src/remote/remote_protocol.x). */
export const remoteProgram = 0x20008086;
/** REMOTE_PROTOCOL_VERSION. */
export const remoteVersion = 1;

/** KEEPALIVE_PROGRAM (src/rpc/virkeepaliveprotocol.x): "keep" in ASCII. */
export const keepaliveProgram = 0x6b656570;
/** KEEPALIVE_PROTOCOL_VERSION. */
export const keepaliveVersion = 1;

/** `virNetMessageType`. The file-descriptor forms (4, 5) and stream holes (6) are not spoken here. */
export const MessageType = { call: 0, reply: 1, message: 2, stream: 3 } as const;

/** `virNetMessageStatus`. */
export const MessageStatus = { ok: 0, error: 1, continue: 2 } as const;

/** The length word. */
export const lengthWordBytes = 4;
/** VIR_NET_MESSAGE_HEADER_MAX: six words. */
export const headerBytes = 24;
/** VIR_NET_MESSAGE_MAX: header and payload, the length word not counted. */
export const messageMaxBytes = 33_554_432;

/** `virNetMessageHeader`. `type` and `status` are what the peer sent, known or not. */
export interface MessageHeader {
  readonly program: number;
  readonly version: number;
  readonly procedure: number;
  readonly type: number;
  readonly serial: number;
  readonly status: number;
}

/** One received message. */
export interface Message {
  readonly header: MessageHeader;
  /** Stands at the payload's first byte. Valid only until the handler returns: the bytes may be reused. */
  readonly payload: XdrReader;
}

/** A message ready for the socket; `encodePayload` writes right behind the header. */
export function encodeMessage(header: MessageHeader, encodePayload: (writer: XdrWriter) => void): Buffer {
  const writer = new XdrWriter();
  writer.uint(0); // the length, known at the end
  writer.uint(header.program);
  writer.uint(header.version);
  writer.int(header.procedure);
  writer.int(header.type);
  writer.uint(header.serial);
  writer.int(header.status);
  encodePayload(writer);
  const bytes = writer.bytes();
  bytes.writeUInt32BE(bytes.length, 0);
  return bytes;
}

/** @param frame a whole message, its length word included. */
export function decodeMessage(frame: Buffer): Message {
  if (frame.length < lengthWordBytes + headerBytes) throw new XdrError('a message without a whole header', 0);
  const payload = new XdrReader(frame, lengthWordBytes);
  const header = {
    program: payload.uint(),
    version: payload.uint(),
    procedure: payload.int(),
    type: payload.int(),
    serial: payload.uint(),
    status: payload.int(),
  };
  return { header, payload };
}
