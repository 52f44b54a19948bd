import type { Logger } from 'pino';
import type { CertificateFiles } from './certificates.js';

/**
 * Reads the certificates again at each SIGHUP, for connections that come from then on: also files that the configuration
 * names since then, for who names a revocation list believes in it.
 * @param reload throws where it cannot
 * @param named the files, as the configuration now has them; throws where there is none
 */
export function reloadOnHangup(
  reload: (files: CertificateFiles) => void,
  named: () => CertificateFiles,
  log: Logger,
): void {
  process.on('SIGHUP', () => {
    try {
      reload(named());
      log.info('the certificates were read again');
    } catch (err) {
      log.error({ err }, 'the certificates could not be read again; those from before stay');
    }
  });
}
