import { AgentError } from '../errors.js';
import { checkedCommand } from './checked-command.js';
import type { ConfinedView } from './confine.js';
import { currentBootId, identityOf, isAlive, waitForExit } from './identity.js';
import { plainlyNamed } from './plain-names.js';
import { assertProcessName, type ProcessSpec, type ServerProcess, type ServerProcesses } from './process.js';
import { openStderr } from './process-log.js';
import { findTool, runTool, ToolError } from './process-tool.js';
import { poll, type Wait, within } from './process-wait.js';
import { endUnit, mainPid, signalUnit, untilGone } from './unit.js';
import {
  confinedProperties,
  mountingProperties,
  type Properties,
  serverProperties,
  systemdRunArguments,
} from './unit-properties.js';
import { runInUnit } from './unit-tool.js';

const runLimits = { maxOutput: 65_536 };
/** That systemd takes to forget a unit whose process has ended. */
const GOING_MS = 10_000;

/**
 * Server processes as transient units of systemd, each with a sandbox of its own: what they need of the host is then not
 * the daemon's to have. systemd takes its orders one after another, so that a unit which a dying daemon has asked for
 * is there when the next one looks.
 */
export const unitProcesses: ServerProcesses = {
  start,
  find: (name) => find(name),
  isAlive: ({ identity }) => isAlive(identity),
  waitForExit: ({ identity }, wait) => waitForExit(identity, wait),
  stop,
  runOnHost: (tool, args, options) => runInUnit(tool, args, [], options),
};

async function start(spec: ProcessSpec, wait: Wait): Promise<ServerProcess> {
  const { name } = spec;
  assertProcessName(name);
  const program = await findTool(spec.program);
  await (await openStderr(spec.stderrFile)).close(); // ours with 0600, and no trap, before systemd opens it
  return within(`Starting ${spec.program}`, wait, async (signal) => {
    await assertFree(name, signal);
    const path = spec.confined?.files[0]?.path;
    const what = path === undefined ? '' : `: ${path.replace(/\p{Cc}/gu, '?')}`;
    const command = checkedCommand(spec.confined?.files ?? [], program, spec.args);
    const options = ['--service-type=exec', `--description=${spec.program} of vmdiskd${what}`];
    const run = (confined: ConfinedView | undefined) => {
      const unit = { name, properties: propertiesOf(spec, confined), options, env: spec.env };
      const limits = { ...runLimits, timeoutMs: wait.timeoutMs, signal };
      return runTool('systemd-run', systemdRunArguments(unit, command), limits);
    };
    try {
      await (spec.confined === undefined ? run(undefined) : plainlyNamed(spec.confined, run));
      // One that has died since is told as dead: no process has the number 0.
      const dead = { name, identity: { pid: 0, startTime: 0, bootId: await currentBootId() } };
      return (await find(name, signal)) ?? dead;
    } catch (error) {
      // Another's unit of that name, which came in between, is not ours to end.
      if (!(error instanceof ToolError && /already (exists|loaded)/.test(error.stderr))) await endUnit(name);
      if (!(error instanceof ToolError)) throw error;
      const { stderr } = error;
      throw new AgentError(
        'ExportFailed',
        `systemd could not start ${spec.program}: ${stderr.split('\n')[0] || error.message}; see journalctl -u ${name}.`,
        { stderr, cause: error },
      );
    }
  });
}

/** The last server of that name may be a moment in going; another's stays. */
async function assertFree(name: string, signal: AbortSignal): Promise<void> {
  await within(`the unit ${name}`, { timeoutMs: GOING_MS, signal }, (soon) => untilGone(name, soon)).catch(
    (cause: unknown) => {
      if (signal.aborted) throw signal.reason;
      throw new AgentError(
        'AlreadyExists',
        `There is a unit ${name} on this host that no export of this daemon has; see systemctl status ${name}, and stop it.`,
        { cause },
      );
    },
  );
}

function propertiesOf(
  { user, umask, fileSize, stderrFile }: ProcessSpec,
  confined: ConfinedView | undefined,
): Properties {
  return [
    ...serverProperties,
    ...(confined === undefined ? mountingProperties : confinedProperties(confined)),
    ...(user === undefined ? [] : [`User=${user.uid}`, `Group=${user.gid}`]),
    ...(fileSize === undefined ? [] : [`LimitFSIZE=${fileSize}`]),
    `UMask=${(umask ?? 0o077).toString(8).padStart(4, '0')}`,
    'StandardOutput=null',
    `StandardError=append:${stderrFile}`,
  ];
}

async function find(name: string, signal?: AbortSignal): Promise<ServerProcess | undefined> {
  assertProcessName(name);
  const pid = await mainPid(name, signal);
  const identity = pid === undefined ? undefined : await identityOf(pid);
  return identity && { name, identity };
}

/** By systemd, since a daemon in its sandbox may not signal processes of other accounts. */
async function stop(
  server: ServerProcess,
  { graceMs, timeoutMs, signal: outer }: Parameters<ServerProcesses['stop']>[1],
): Promise<void> {
  const { name, identity } = server;
  await within(`Stopping ${name}`, { timeoutMs, signal: outer }, async (signal) => {
    const isThere = async () => (await isAlive(identity)) && (await mainPid(name, signal)) === identity.pid;
    if (await isThere()) await signalUnit(name, 'SIGTERM', signal);
    const killAt = Date.now() + graceMs;
    let killed = false;
    await poll(signal, async () => {
      if (!(await isAlive(identity))) return true;
      if (Date.now() >= killAt && !killed) {
        killed = true;
        if (await isThere()) await signalUnit(name, 'SIGKILL', signal);
      }
      return undefined;
    });
  });
}
