/** Telling systemd how we are: sd_notify(3). Node has no datagram sockets of the UNIX kind, so systemd-notify(1) has to. */
import { execa } from 'execa';
import type { Logger } from 'pino';
import { findTool, minimalEnvironment } from './process-tool.js';

/** Milliseconds for one word to systemd. It says when it has taken it. */
const TELL_MS = 10_000;

export interface Service {
  /** `--ready`, `STOPPING=1`, `STATUS=…`. Never fails: what cannot be told is logged, and systemd has deadlines of its own. */
  tell(...words: readonly string[]): Promise<void>;
  /** Says that we live, as often as the unit's WatchdogSec= wants, for as long as the event loop turns. Idempotent close. */
  watchdog(): { close(): void };
}

/** @param env of this process; without NOTIFY_SOCKET in it nobody is told anything */
export function serviceOf(env: NodeJS.ProcessEnv, log: Logger, pid = process.pid): Service {
  const { NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID } = env;
  // They are for us, and not for what we start.
  for (const name of ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID']) delete env[name];
  const tell = async (...words: readonly string[]): Promise<void> => {
    if (NOTIFY_SOCKET === undefined) return;
    try {
      await execa(await findTool('systemd-notify'), [`--pid=${pid}`, ...words], {
        cwd: '/',
        env: { ...minimalEnvironment, NOTIFY_SOCKET },
        extendEnv: false,
        timeout: TELL_MS,
        maxBuffer: 65_536,
      });
    } catch (err) {
      log.warn({ err, words }, 'systemd could not be told');
    }
  };
  return {
    tell,
    watchdog() {
      const isOurs = WATCHDOG_PID === undefined || WATCHDOG_PID === String(pid);
      const everyMs = Number(WATCHDOG_USEC ?? 0) / 1000 / 3;
      if (!isOurs || everyMs <= 0) return { close() {} };
      let telling = false;
      const timer = setInterval(() => {
        if (telling) return;
        telling = true;
        void tell('WATCHDOG=1').finally(() => {
          telling = false;
        });
      }, everyMs);
      return { close: () => clearInterval(timer) };
    },
  };
}
