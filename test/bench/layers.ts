/** One raw image as the real daemon serves it, read-only and behind a throw-away layer, and as a plain qemu-nbd does. */
import { copyFileSync } from 'node:fs';
import { startHost, type Teardown } from '../host/host.js';
import { poll } from '../host/poll.js';

const START_MS = 15_000;
const SOCKET = '/run/plain.sock';

/** URIs. */
export interface Layered {
  plain: string;
  readOnly: string;
  scratch: string;
}

/** Starts a private host with the daemon in it. Needs root and a build. @param image what the image has in it */
export async function startLayers(t: Teardown, image: string): Promise<Layered> {
  const host = await startHost(t);
  const path = '/var/lib/libvirt/images/bench.raw';
  copyFileSync(image, host.path(path));
  const uri = (name: string, socket: string): string => `nbd+unix:///${name}?socket=${host.path(socket)}`;
  // As the daemon starts one, but over the file alone, and not confined.
  const options = ['--persistent', '--shared=16', '--format=raw', '--read-only'];
  await host.spawn('qemu-nbd', [...options, '--export-name=plain', `--socket=${SOCKET}`, path]);
  const straight = ['--size', `nbd+unix:///plain?socket=${SOCKET}`];
  await poll(SOCKET, START_MS, async () => (await host.run('nbdinfo', straight)).exitCode === 0);

  const daemon = await host.startDaemon({ limits: { scratchReserve: 1 << 20 } });
  const mount = async (exportId: string, access: string): Promise<string> => {
    await daemon.call('mountDisk', { exportId, path, format: 'raw', access });
    return uri(exportId, `/run/vmdiskd/exports/${exportId}/nbd.sock`);
  };
  return {
    plain: uri('plain', SOCKET),
    readOnly: await mount('r', 'read-only'),
    scratch: await mount('s', 'scratch'),
  };
}
