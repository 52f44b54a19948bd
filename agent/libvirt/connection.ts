/**
 * One connection to libvirtd: calls out, replies and events in, told apart by their headers.
 *
 * It lives once: when it is lost, every call in flight is rejected at once and it stays lost. Coming back is
 * `Link`'s, subscriptions are `EventSubscriptions`'.
 */
import type { Duplex } from 'node:stream';
import { type CallOptions, Deadline } from './deadline.js';
import {
  ConnectionLostError,
  LibvirtError,
  MessageTooLargeError,
  ProtocolError,
  remoteError,
} from './errors.js';
import { FrameSplitter } from './framing.js';
import type { IgnoredMessages } from './ignored.js';
import { KeepAlive, type KeepAliveOptions } from './keepalive.js';
import {
  decodeMessage,
  encodeMessage,
  keepaliveProgram,
  keepaliveVersion,
  lengthWordBytes,
  type Message,
  MessageStatus,
  MessageType,
  remoteProgram,
  remoteVersion,
} from './message.js';
import type { Procedure } from './procedure.js';
import type { XdrReader } from './xdr.js';

export interface ConnectionOptions {
  /** The largest message either way, header included, in bytes. */
  readonly maxMessageBytes: number;
  /** The time limit of calls that bring none, in milliseconds. */
  readonly timeoutMs: number;
  /** Counted up here; may be shared by several connections. */
  readonly ignored: IgnoredMessages;
  /** Takes an event by its procedure number; false if it knows none of that number. Must not keep the reader. */
  readonly onEvent: (procedure: number, payload: XdrReader) => boolean;
  /** Called once, before the calls in flight are rejected. */
  readonly onLost?: (error: ConnectionLostError) => void;
}

/** `keepalive_procedure` (src/rpc/virkeepaliveprotocol.x). */
const keepalive = { ping: 1, pong: 2 };

interface PendingCall {
  readonly procedure: Procedure<unknown, unknown>;
  readonly deadline: Deadline;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly onSettled: () => void;
  abandoned: boolean;
}

const ignore = (): void => {};

export class Connection {
  /** Resolves when the connection is lost or closed, with the reason; never rejects. */
  readonly closed: Promise<ConnectionLostError>;
  readonly #socket: Duplex;
  readonly #options: ConnectionOptions;
  readonly #splitter: FrameSplitter;
  readonly #calls = new Map<number, PendingCall>();
  #lastSerial = 0;
  #keepAlive: KeepAlive | undefined;
  #lost: ConnectionLostError | undefined;
  #resolveClosed: (error: ConnectionLostError) => void = ignore;

  /** @param socket connected; from now on this connection's alone. */
  constructor(socket: Duplex, options: ConnectionOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#splitter = new FrameSplitter(options.maxMessageBytes);
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', (error) => this.lose('the connection to libvirtd failed', error));
    // A UNIX socket that is closed on one side is of no use: without this, calls would wait for their deadlines.
    socket.on('end', () => this.lose('libvirtd closed the connection'));
    socket.on('close', () => this.lose('the connection to libvirtd was closed'));
  }

  /** Why the connection is of no more use; undefined while it is. */
  get lost(): ConnectionLostError | undefined {
    return this.#lost;
  }

  /** Calls that libvirtd has not answered yet, also those whose caller has given up. */
  get inFlight(): number {
    return this.#calls.size;
  }

  /** Sends a call and waits for its answer. Any number may be in flight; answers come in libvirtd's order. */
  async call<A, R>(procedure: Procedure<A, R>, args: A, options: CallOptions = {}): Promise<R> {
    const timeoutMs = options.timeoutMs ?? this.#options.timeoutMs;
    return this.send(procedure, args, new Deadline(procedure.name, timeoutMs, options.signal));
  }

  /**
   * As `call`, under a deadline that already runs.
   * @param onSettled called once libvirtd has no more to do for this call: when it answered, however late, or the
   *   connection is lost. This, and not the caller's patience, says how busy libvirtd is on this connection.
   */
  send<A, R>(
    procedure: Procedure<A, R>,
    args: A,
    deadline: Deadline,
    onSettled: () => void = ignore,
  ): Promise<R> {
    return new Promise<R>((resolve, reject) => {
      const refuse = (error: unknown): void => {
        deadline.clear();
        onSettled();
        reject(error);
      };
      if (this.#lost !== undefined) {
        refuse(new ConnectionLostError(this.#lost.message, false, { cause: this.#lost.cause }));
        return;
      }
      const serial = this.#nextSerial();
      let frame: Buffer;
      try {
        frame = encodeMessage(
          {
            program: remoteProgram,
            version: remoteVersion,
            procedure: procedure.number,
            type: MessageType.call,
            serial,
            status: MessageStatus.ok,
          },
          (writer) => procedure.args.encode(writer, args),
        );
      } catch (error) {
        refuse(error);
        return;
      }
      const bytes = frame.length - lengthWordBytes;
      if (bytes > this.#options.maxMessageBytes) {
        refuse(new MessageTooLargeError(procedure.name, bytes, this.#options.maxMessageBytes));
        return;
      }
      const call: PendingCall = {
        procedure: procedure as Procedure<unknown, unknown>,
        deadline,
        resolve: resolve as (result: unknown) => void,
        reject,
        onSettled,
        abandoned: false,
      };
      this.#calls.set(serial, call);
      deadline.onEnd(true, (error) => {
        // The serial stays known until libvirtd answers: it is still at work on this call.
        call.abandoned = true;
        reject(error);
      });
      this.#socket.write(frame);
    });
  }

  /**
   * Begins to send keepalive. Only after libvirtd has said that it speaks it (VIR_DRV_FEATURE_PROGRAM_KEEPALIVE);
   * its own pings are answered anyway.
   */
  startKeepAlive(options: KeepAliveOptions): void {
    if (this.#keepAlive !== undefined || this.#lost !== undefined) return;
    this.#keepAlive = new KeepAlive(
      options,
      () => this.#sendKeepAlive(keepalive.ping),
      () => this.lose(`libvirtd answered none of ${options.count} keepalive messages`),
    );
  }

  /** Ends the connection; calls in flight are rejected. Idempotent. libvirtd frees what hung on it. */
  close(): void {
    this.lose('the connection was closed by this client');
  }

  /** Ends the connection for a reason that showed elsewhere. Idempotent: the first reason stays. */
  lose(message: string, cause?: unknown): void {
    if (this.#lost !== undefined) return;
    const options = cause === undefined ? undefined : { cause };
    const lost = new ConnectionLostError(message, false, options);
    this.#lost = lost;
    this.#keepAlive?.stop();
    this.#socket.destroy();
    this.#options.onLost?.(lost);
    this.#resolveClosed(lost);
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    for (const call of calls) {
      call.deadline.clear();
      call.onSettled();
      if (!call.abandoned) call.reject(new ConnectionLostError(message, true, options));
    }
  }

  #receive(chunk: Buffer): void {
    if (this.#lost !== undefined) return;
    try {
      for (const frame of this.#splitter.push(chunk)) {
        this.#keepAlive?.heard();
        this.#route(decodeMessage(frame));
        if (this.#lost !== undefined) return;
      }
    } catch (error) {
      this.lose('libvirtd sent what is not its protocol', error);
    }
  }

  #route({ header, payload }: Message): void {
    const { ignored } = this.#options;
    if (header.program === keepaliveProgram && header.version === keepaliveVersion) {
      if (header.procedure === keepalive.ping) this.#sendKeepAlive(keepalive.pong);
    } else if (header.program !== remoteProgram || header.version !== remoteVersion) {
      ignored.programs++;
    } else if (header.type === MessageType.reply) {
      this.#settle(header.serial, header.status, payload);
    } else if (header.type === MessageType.message) {
      if (!this.#options.onEvent(header.procedure, payload)) ignored.events++;
    } else {
      ignored.types++;
    }
  }

  #settle(serial: number, status: number, payload: XdrReader): void {
    const call = this.#calls.get(serial);
    if (call === undefined) {
      this.#options.ignored.unknownReplies++;
      return;
    }
    this.#calls.delete(serial);
    call.deadline.clear();
    if (call.abandoned) {
      this.#options.ignored.lateReplies++;
    } else {
      this.#answer(call, status, payload);
    }
    call.onSettled();
  }

  #answer({ procedure, resolve, reject }: PendingCall, status: number, payload: XdrReader): void {
    try {
      if (status === MessageStatus.ok) {
        const result = procedure.result.decode(payload);
        payload.end();
        resolve(result);
      } else if (status === MessageStatus.error) {
        reject(new LibvirtError(procedure.name, remoteError.decode(payload)));
      } else {
        reject(new ProtocolError(`libvirtd answered ${procedure.name} with the unknown status ${status}`));
      }
    } catch (error) {
      // The next message starts where the length word says, so this one's content is this call's trouble alone.
      reject(new ProtocolError(`libvirtd's answer to ${procedure.name} cannot be read`, { cause: error }));
    }
  }

  /** From 1 up, around at 2^32, past serials that are still in use. 0 is for messages that are no call. */
  #nextSerial(): number {
    do {
      this.#lastSerial = this.#lastSerial === 0xffff_ffff ? 1 : this.#lastSerial + 1;
    } while (this.#calls.has(this.#lastSerial));
    return this.#lastSerial;
  }

  #sendKeepAlive(procedure: number): void {
    const header = {
      program: keepaliveProgram,
      version: keepaliveVersion,
      procedure,
      type: MessageType.message,
      serial: 0,
      status: MessageStatus.ok,
    };
    this.#socket.write(encodeMessage(header, ignore));
  }
}
