/** The campaign's other host: its gateway exports a disk to the VMs of the first. Nothing happens to it. */
import { join } from 'node:path';
import type { Drive } from '../../agent/api/generated.js';
import { MiB, prepare } from '../exports/rig.js';
import { type Host, startHost, type Teardown } from '../host/host.js';
import { joinHosts } from '../host/network.js';
import { makePki } from '../tls/pki.js';
import { installQemuCertificate } from '../tls/qemu-certificates.js';

const ADDRESS = '192.0.2.1';

/** What the first host's daemon has to be told of it. */
export const OTHER_HOST = { hotplug: { allowedHosts: [ADDRESS] } };

/** To be called before there are VMs: libvirtd begins anew. @returns a drive of an export that stays */
export async function startOtherHost(t: Teardown, first: Host): Promise<Drive> {
  const other = await startHost(t);
  await joinHosts(other, first);
  const pki = await makePki(join(other.dir, 'pki'));
  await installQemuCertificate(first, pki, 'appliance');
  const config = { gateway: { listen: [`${ADDRESS}:10809`] }, tls: pki.tls };
  const daemon = await other.startDaemon(config);
  await other.startGateway(config);
  const path = await other.createImage({ name: 'remote.raw', format: 'raw', size: MiB });
  const { drive } = await prepare(daemon, {
    ...{ exportId: 'remote', path, format: 'raw' },
    transport: { type: 'tcp', tls: 'x509', clients: ['dns:appliance.example'] },
  });
  return drive;
}
