import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

/** What a command in the guest did. */
export interface GuestResult {
  stdout: string;
  stderr: string;
  exitCode: number;
}

/**
 * Commands in a guest, over the UNIX socket of its `vmd.shell` virtio port. The other end is `guest-image/init`: a
 * request is a line of id and command, the answer a line of id, exit code and both outputs, everything in base64.
 * Commands run side by side; QEMU keeps what is sent before the guest has opened the port.
 */
export class GuestShell {
  readonly #socket: Socket;
  readonly #waiting = new Map<string, (line: string[] | Error) => void>();
  #nextId = 1;
  #closed: Error | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    createInterface({ input: socket }).on('line', (line) => {
      const fields = line.split(' ');
      this.#waiting.get(fields[0] ?? '')?.(fields);
    });
    socket.on('error', () => {}).on('close', () => this.#end(new Error('The guest is gone')));
  }

  /** Connects; the guest need not have booted yet. */
  static connect(path: string): Promise<GuestShell> {
    return new Promise((resolve, reject) => {
      const socket = connect(path, () => {
        socket.off('error', reject);
        resolve(new GuestShell(socket));
      });
      socket.once('error', reject);
    });
  }

  /** Runs a command with the guest's `sh`. Rejects when there is no answer in time, or when the guest is gone. */
  run(command: string, timeoutMs: number): Promise<GuestResult> {
    const id = String(this.#nextId++);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => settle(new Error(`The guest did not answer in ${timeoutMs / 1000} s: ${command}`)),
        timeoutMs,
      );
      const settle = (answer: string[] | Error): void => {
        clearTimeout(timer);
        this.#waiting.delete(id);
        if (answer instanceof Error) reject(answer);
        else resolve(decodeAnswer(answer));
      };
      this.#waiting.set(id, settle);
      if (this.#closed !== undefined) settle(this.#closed);
      else this.#socket.write(`${id} ${Buffer.from(command).toString('base64')}\n`);
    });
  }

  /** Idempotent. */
  close(): void {
    this.#socket.destroy();
  }

  #end(why: Error): void {
    this.#closed = why;
    for (const settle of [...this.#waiting.values()]) settle(why);
  }
}

function decodeAnswer([, code, out = '', err = '']: string[]): GuestResult {
  return { exitCode: Number(code), stdout: decode(out), stderr: decode(err) };
}

/** The `=` in front keeps an empty field visible. */
function decode(field: string): string {
  return Buffer.from(field.slice(1), 'base64').toString();
}
