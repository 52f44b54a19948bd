import type { Logger } from 'pino';

/** Reads the certificates again at each SIGHUP, for connections that come from then on. @param reload throws where it cannot */
export function reloadOnHangup(reload: () => void, log: Logger): void {
  process.on('SIGHUP', () => {
    try {
      reload();
      log.info('the certificates were read again');
    } catch (err) {
      log.error({ err }, 'the certificates could not be read again; those from before stay');
    }
  });
}
