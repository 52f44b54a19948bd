/** The built daemon with the injection of `inject/` loaded into it. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import type { DaemonConfig, DaemonHandle, LaunchOptions } from '../host/daemon.js';
import type { Host } from '../host/host.js';
import type { Arming } from './inject/point.js';

const SOURCE = fileURLToPath(new URL('inject/', import.meta.url));
const CONTROL_MS = 10_000;

/** A daemon whose points can be armed. */
export interface InjectedDaemon extends DaemonHandle {
  /** Counts points anew from now on, for the fault that is wanted. */
  arm(arming: Arming): Promise<void>;
  /** The points that it has passed since the last arming, or its start, and what happened there. */
  passed(): string[];
}

/**
 * Starts the daemon. Its injection is compiled into the host's own directory: no loader is in the daemon.
 * @param arming in force from its first deed on
 */
export async function startInjected(
  host: Host,
  config: DaemonConfig,
  arming: Arming = { at: null },
  options: Pick<LaunchOptions, 'confined'> = {},
): Promise<InjectedDaemon> {
  const preload = compile(host);
  started += 1;
  const [trace, socket] = [`${host.dir}/points-${started}`, `${host.dir}/control`];
  writeFileSync(trace, '');
  const daemon = await host.startDaemon(config, {
    ...options,
    awaitRecovery: false, // callers have to cope, and so has whoever kills it in the middle of that
    nodeArgs: ['--import', preload],
    env: {
      FAULTS_TRACE: trace,
      FAULTS_ARM: JSON.stringify(arming),
      FAULTS_CONTROL: socket,
    },
  });
  let from = 0;
  const lines = () => readFileSync(trace, 'utf8').split('\n').slice(0, -1);
  return {
    ...daemon,
    arm: async (next) => {
      await tell(socket, next);
      from = lines().length;
    },
    passed: () => lines().slice(from),
  };
}

let started = 0;
let compiled: string | undefined;
function compile(host: Host): string {
  const directory = `${host.dir}/inject`;
  if (compiled !== directory) {
    mkdirSync(directory);
    writeFileSync(`${directory}/package.json`, '{"type": "module"}');
    const compilerOptions = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 };
    for (const name of readdirSync(SOURCE)) {
      const { outputText } = ts.transpileModule(readFileSync(join(SOURCE, name), 'utf8'), {
        compilerOptions,
      });
      writeFileSync(`${directory}/${basename(name, '.ts')}.js`, outputText);
    }
    compiled = directory;
  }
  return `${directory}/preload.js`;
}

/** One line there, one line back. */
function tell(path: string, arming: Arming): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => socket.write(`${JSON.stringify(arming)}\n`));
    socket.setTimeout(CONTROL_MS, () => socket.destroy(new Error('the injection does not answer')));
    socket.once('data', () => {
      socket.destroy();
      resolve();
    });
    socket.once('error', reject).once('close', () => reject(new Error('the injection has hung up')));
  });
}
