/** Stands between the daemon and the real libvirtd, and slips in an event that QEMU on x86 never sends for a disk. */
import { connect, createServer, type Socket } from 'node:net';
import { event, str, words } from '../libvirt/fake-libvirtd.js';

/** REMOTE_PROC_DOMAIN_EVENT_CALLBACK_DEVICE_REMOVAL_FAILED (src/remote/remote_protocol.x). */
const DEVICE_REMOVAL_FAILED = 367;

export interface LibvirtRelay {
  /** The guest of that domain refuses to let a device go. */
  sendRemovalFailed(domain: { name: string; uuid: string }, alias: string): void;
  close(): void;
}

/** @param path where it listens; @param libvirt libvirtd's own socket */
export async function startLibvirtRelay(path: string, libvirt: string): Promise<LibvirtRelay> {
  const clients = new Set<Client>();
  const server = createServer((socket) => {
    const client = new Client(socket, connect(libvirt));
    clients.add(client);
    socket.on('close', () => clients.delete(client));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(path, resolve);
  });
  return {
    sendRemovalFailed({ name, uuid }, alias) {
      const domain = [str(name), Buffer.from(uuid.replaceAll('-', ''), 'hex'), words(1)];
      const message = event(DEVICE_REMOVAL_FAILED, Buffer.concat([words(0), ...domain, str(alias)]));
      // Any connection of a client carries its events.
      const [client] = clients;
      client?.send(message);
    },
    close() {
      server.close();
      for (const client of clients) client.close();
    },
  };
}

/** One connection: what libvirtd says is passed on message by message. */
class Client {
  readonly #socket: Socket;
  readonly #libvirt: Socket;
  #bytes = Buffer.alloc(0);

  constructor(socket: Socket, libvirt: Socket) {
    this.#socket = socket;
    this.#libvirt = libvirt;
    socket.pipe(libvirt);
    libvirt.on('data', (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      while (this.#bytes.length >= 4 && this.#bytes.length >= this.#bytes.readUInt32BE(0)) {
        const length = this.#bytes.readUInt32BE(0);
        this.send(this.#bytes.subarray(0, length));
        this.#bytes = this.#bytes.subarray(length);
      }
    });
    for (const one of [socket, libvirt]) {
      one.on('error', () => this.close());
      one.on('close', () => this.close());
    }
  }

  send(message: Buffer): void {
    this.#socket.write(message);
  }

  close(): void {
    this.#socket.destroy();
    this.#libvirt.destroy();
  }
}
