import type { ConfinedView } from './confine.js';
import type { ProcessIdentity } from './identity.js';
import type { RunTool } from './process-tool.js';
import type { Wait } from './process-wait.js';

/**
 * A server process of ours, as it is written in records: enough to find, judge and end it after the daemon that
 * started it is gone.
 */
export interface ServerProcess {
  /** The name that the caller chose before the start; also the name of a transient unit. */
  readonly name: string;
  readonly identity: ProcessIdentity;
}

/** What to run. Resolved, complete and readonly: nothing is taken from the daemon's own surroundings. */
export interface ProcessSpec {
  /**
   * Unique on the host, 1-200 of `[A-Za-z0-9_.:-]`, e.g. `vmdiskd-export-<id>`. Records come before deeds: the
   * caller writes this name down first; after a crash at any instant `find(name)` tells whether it runs.
   */
  readonly name: string;
  /** A program's name, looked up in the usual system directories, or an absolute path. */
  readonly program: string;
  readonly args: readonly string[];
  /** Added to a minimal environment (PATH, LC_ALL=C). */
  readonly env?: Readonly<Record<string, string>>;
  /** A file that gets the server's stderr; made with 0600 where absent, appended to. The caller removes it. */
  readonly stderrFile: string;
  /** All that it sees of the host, as an account of its own; absent: what the daemon sees. */
  readonly confined?: ConfinedView;
  /** Numeric ids to run as, without any supplementary group; absent: the daemon's own, or the confinement's. */
  readonly user?: { readonly uid: number; readonly gid: number };
  /** Bytes that a file of the server may grow to: beyond it writes fail (EFBIG), and nothing else does. */
  readonly fileSize?: number;
  /** What the server may not give to the files and sockets that it makes; 0o077 where absent. */
  readonly umask?: number;
}

/**
 * Starts, finds and ends long-lived server processes that outlive the daemon: as detached children
 * (`childProcesses`), or as systemd transient units. They run in a session of their own, in `/`, with stdin from
 * /dev/null. Whichever it is, a server that has been started is known by its `ServerProcess` alone.
 */
export interface ServerProcesses {
  /**
   * Returns as soon as the program runs (not: as soon as it serves). A program that cannot be run at all is an
   * `AgentError`: `ToolMissing` where it is not installed. When this throws, nothing is left running.
   */
  start(spec: ProcessSpec, wait: Wait): Promise<ServerProcess>;
  /** The live process that was started under that name, whoever started it; undefined where there is none. */
  find(name: string): Promise<ServerProcess | undefined>;
  isAlive(server: ServerProcess): Promise<boolean>;
  /** Returns once it is dead, of itself or not; `Timeout` at the deadline. */
  waitForExit(server: ServerProcess, wait: Wait): Promise<void>;
  /**
   * SIGTERM, then after `graceMs` SIGKILL; returns once the process is gone, so that its locks are too. Success
   * where it is dead already or its pid belongs to another by now. `graceMs` must give a writing server time to
   * store its bitmaps: a killed one leaves them `in-use`.
   */
  stop(server: ServerProcess, options: StopOptions): Promise<void>;
  /**
   * Runs a short-lived program like `runTool`, with root's privileges in the host's own mount namespace, neither of which
   * a daemon has that systemd keeps in a sandbox.
   */
  readonly runOnHost: RunTool;
}

export interface StopOptions extends Wait {
  /** Milliseconds between SIGTERM and SIGKILL; no longer than `timeoutMs`, from which it is taken. */
  readonly graceMs: number;
}

const namePattern = /^[A-Za-z0-9_.:-]{1,200}$/;

/** Throws a TypeError for a name that could not be a unit's name, or could not be told apart in an environment. */
export function assertProcessName(name: string): void {
  if (!namePattern.test(name)) {
    throw new TypeError(`A process name is 1-200 of [A-Za-z0-9_.:-], not ${JSON.stringify(name)}.`);
  }
}
