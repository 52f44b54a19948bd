/** Deeds of libvirt: calls that change something, as they go out, and as their answers come in. */
import net, { type Socket } from 'node:net';
import { point } from './point.js';

/** REMOTE_PROC_... of what the agent has done (src/remote/remote_protocol.x). */
const CHANGING: ReadonlyMap<number, string> = new Map([
  [28, 'domainResume'],
  [160, 'domainAttachDeviceFlags'],
  [164, 'domainAbortJob'],
  [185, 'domainSnapshotCreateXML'],
  [193, 'domainSnapshotDelete'],
  [237, 'domainBlockJobAbort'],
  [290, 'domainBlockCommit'],
  [335, 'domainFSFreeze'],
  [336, 'domainFSThaw'],
  [386, 'domainSetBlockThreshold'],
  [392, 'domainDetachDeviceAlias'],
  [411, 'domainCheckpointCreateXML'],
  [417, 'domainCheckpointDelete'],
  [421, 'domainBackupBegin'],
  [442, 'domainAbortJobFlags'],
]);
/** REMOTE_PROGRAM, and VIR_NET_CALL and VIR_NET_REPLY. */
const [PROGRAM, CALL, REPLY] = [0x20008086, 0, 1];

/** The words of a message's header: see agent/libvirt/message.ts. */
function header(frame: Buffer): { program: number; procedure: number; type: number; serial: number } {
  const word = (index: number) => frame.readUInt32BE(index * 4);
  return { program: word(1), procedure: word(3), type: word(4), serial: word(5) };
}

/** To be followed by `syncBuiltinESMExports`. */
export function wrapLibvirt(): void {
  const { connect } = net;
  const wrapped = (...args: unknown[]): Socket => {
    const socket = (connect as (...args: unknown[]) => Socket)(...args);
    if (typeof args[0] === 'string' && /(libvirt|virtqemud)-sock$/.test(args[0])) wrapSocket(socket);
    return socket;
  };
  net.connect = wrapped as typeof connect;
}

function wrapSocket(socket: Socket): void {
  const calls = new Map<number, string>();
  const write = socket.write as (...args: unknown[]) => boolean;
  let listens = false;
  socket.write = ((...args: unknown[]) => {
    // Not before: whoever dials takes all listeners away when it is connected.
    if (!listens) socket.prependListener('data', frames(onReply));
    listens = true;
    const { program, procedure, type, serial } = header(args[0] as Buffer);
    const name = program === PROGRAM && type === CALL ? CHANGING.get(procedure) : undefined;
    if (name === undefined) return write.apply(socket, args);
    calls.set(serial, name);
    point(`before ${name}`);
    const written = write.apply(socket, args);
    point(`sent ${name}`);
    return written;
  }) as typeof socket.write;
  const onReply = (frame: Buffer): void => {
    const { program, type, serial } = header(frame);
    const name = calls.get(serial);
    if (program !== PROGRAM || type !== REPLY || name === undefined) return;
    calls.delete(serial);
    point(`answered ${name}`);
  };
}

/** Cuts chunks into messages. */
function frames(onFrame: (frame: Buffer) => void): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    while (rest.length >= 4 && rest.length >= rest.readUInt32BE(0)) {
      const length = rest.readUInt32BE(0);
      onFrame(rest.subarray(0, length));
      rest = rest.subarray(length);
    }
  };
}
