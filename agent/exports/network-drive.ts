/** What has to be in order before QEMU is sent to a gateway: the address, QEMU's certificates, and the gateway itself. */
import type { Drive } from '../api/generated.js';
import { readClientCertificates } from '../domains/client-certificates.js';
import { type CertificateDirectory, nbdCertificateDirectory } from '../domains/qemu-conf.js';
import { AgentError } from '../errors.js';
import type { Domain } from '../libvirt/index.js';
import { isAllowedHost, shownAddress } from './allowed-hosts.js';
import type { ExportCall, ExportsContext } from './context.js';
import { tcpTransport } from './find-gateway.js';
import type { ExportRecord } from './record.js';
import { tryGateway } from './try-gateway.js';

/**
 * Judges the address of a drive on the network: QEMU is never sent to one that a caller made up, nor without TLS.
 * @param own the export of this host that it is of, if any
 * @throws AgentError `NotAuthorized`
 */
export function refuseAddress(
  { settings }: ExportsContext,
  drive: Drive,
  own: ExportRecord | undefined,
): void {
  const host = drive.hosts[0];
  if (host.transport !== 'tcp') return;
  const about = { exportId: drive.name };
  const transport = own && tcpTransport(own.params);
  if (drive.tlsCredentials === 'psk' || transport?.tls === 'psk') {
    throw new AgentError(
      'NotAuthorized',
      `The drive "${drive.name}" is opened with a pre-shared key, and libvirt has certificates only; prepare it with tls "x509", or on a UNIX socket.`,
      about,
    );
  }
  if (!drive.tls) {
    throw new AgentError(
      'NotAuthorized',
      `The drive "${drive.name}" is reached over the network without TLS, and QEMU is not sent there; prepare it with tls "x509", or on a UNIX socket.`,
      about,
    );
  }
  if (isAllowedHost(settings.allowedHosts, host)) return;
  throw new AgentError(
    'NotAuthorized',
    `The drive "${drive.name}" is reached over the network at ${shownAddress(host)}, which [hotplug] allowedHosts of this host does not name; add it there, or plug in a drive that this host exports on a UNIX socket.`,
    about,
  );
}

/**
 * Runs `work`, which plugs the drive in, with what has to be done right before QEMU is asked; nothing for a drive on a UNIX
 * socket. QEMU connects within one command of its monitor, and for as long as that takes the VM can be asked nothing: so
 * everything is found out before.
 */
export async function throughNetwork<T>(
  context: ExportsContext,
  drive: Drive,
  domain: Domain,
  { signal }: ExportCall,
  work: (ready: () => Promise<void>) => Promise<T>,
): Promise<T> {
  const host = drive.hosts[0];
  if (host.transport !== 'tcp') return work(async () => {});
  const about = { exportId: drive.name, vmId: domain.uuid };
  let directory: CertificateDirectory | undefined;
  const ready = async () => {
    directory = await nbdCertificateDirectory(context.settings.qemuConf);
    const certificates = await readClientCertificates(
      directory,
      context.points.qemuUser,
      about,
      context.processes.runOnHost,
      signal,
    );
    await tryGateway(drive, host, certificates, about, signal);
  };
  try {
    return await work(ready);
  } catch (error) {
    throw otherDirectory(error, directory) ?? error;
  }
}

/**
 * QEMU (crypto/tlscreds.c) names the file that it did not find. In another directory than the one that we have looked at it
 * means that libvirt was started before that was made or set.
 */
function otherDirectory(error: unknown, directory: CertificateDirectory | undefined): AgentError | undefined {
  if (!(error instanceof AgentError) || directory === undefined) return undefined;
  const { libvirt, ...about } = error.details;
  const dir = /credentials (\/.*)\/[^/]+\.pem/.exec(libvirt?.message ?? '')?.[1];
  if (libvirt === undefined || dir === undefined || dir === directory.dir) return undefined;
  return new AgentError(
    'HotplugDiskFailed',
    `libvirt still sends QEMU to ${dir} for its certificates, and not to ${directory.dir} (${directory.because}), since it looks at its start; start libvirt's daemon again (VMs run on), then try again.`,
    { ...about, libvirt, cause: error },
  );
}
