import { AgentError, type ErrorDetails, type ErrorName } from '../errors.js';
import { CallTimeoutError, isConnectionFailure, isNoDomain, LibvirtError } from '../libvirt/index.js';

/**
 * What a caller is told of a failed libvirt call.
 * @param name the error of the verb for what libvirt itself answers
 * @param doing what was tried, for the sentence: `plug the drive into web1`
 */
export function libvirtFault(
  cause: unknown,
  name: ErrorName,
  doing: string,
  details: Omit<ErrorDetails, 'cause' | 'libvirt'> = {},
): unknown {
  if (isConnectionFailure(cause)) {
    return new AgentError(
      'LibvirtUnavailable',
      `libvirt went away or cannot be reached, so vmdiskd could not ${doing}; see that libvirtd (or virtqemud) ` +
        'runs, then try again.',
      { ...details, retryable: true, cause },
    );
  }
  if (cause instanceof CallTimeoutError) {
    return new AgentError(
      'Timeout',
      `libvirt did not answer in time when asked to ${doing}; the VM's QEMU may hang: see to it, then try again.`,
      { ...details, cause },
    );
  }
  if (!(cause instanceof LibvirtError)) return cause;
  const { code, domain, message } = cause;
  const libvirt = { code, domain, message };
  if (isNoDomain(cause)) {
    return new AgentError('NoSuchVM', `The VM is gone, so vmdiskd could not ${doing}.`, {
      ...details,
      libvirt,
    });
  }
  const said = message.trim().replace(/\s+/g, ' ').replace(/\.$/, ''); // it may quote several lines of QEMU's
  return new AgentError(name, `libvirt could not ${doing}: ${said}; mend that, then try again.`, {
    ...details,
    libvirt,
    cause,
  });
}
