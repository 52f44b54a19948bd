#!/usr/bin/env node
import type { CommanderError } from 'commander';
import type { GetJobResult, Verbs } from '../api/generated.js';
import type { VerbSchema } from '../api/schema.js';
import { verbSchemas } from '../api/schemas.js';
import type { Endpoint } from './answer.js';
import { call } from './call.js';
import { endpointAt } from './endpoint.js';
import { exitStatus, failureText, RpcFailure, statusOf } from './failure.js';
import { followEvents } from './follow-events.js';
import { type Ask, createProgram } from './program.js';
import { targetOf } from './settings.js';
import { show } from './show.js';
import { waitForJob } from './wait-job.js';

/** Seconds beyond a verb's deadline: its undoing, and a busy host. */
const GRACE = 60;

async function main(): Promise<void> {
  // `vmdiskctl … | head`: who does not want the rest has it.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
  const program = createProgram(act);
  for (const command of [program, ...program.commands]) command.exitOverride();
  try {
    await program.parseAsync();
  } catch (error) {
    if (!isCommanders(error)) throw error;
    process.exitCode = error.exitCode === 0 ? exitStatus.done : exitStatus.usage;
  }
}

/** Calls the verb, and shows what it answers. */
async function act({ verb, params, options }: Ask): Promise<void> {
  const print = (result: unknown, columns?: readonly string[]): void => {
    process.stdout.write(options.json ? `${JSON.stringify(result)}\n` : show(result, columns));
  };
  let endpoint: Endpoint | undefined;
  try {
    const target = targetOf(options);
    endpoint = endpointAt(target.uri, options);
    const open = endpoint;
    const ask = (name: keyof Verbs, of: object): Promise<unknown> => {
      const deadline = target.deadlines[name] ?? verbSchemas[name].deadlineSeconds;
      return call(open, name, of, {
        timeoutSeconds: options.timeout ?? deadline + GRACE,
        retrySeconds: options.retry ?? 0,
      });
    };
    if (options.follow)
      return await followEvents(params, (of) => ask('waitEvents', of), options.json === true);
    const result = await ask(verb, params);
    if (!options.wait) return print(result, (verbSchemas[verb] as VerbSchema).columns);
    const { jobId } = result as GetJobResult;
    print(await waitForJob(jobId, ask, progressOn(process.stderr)));
  } catch (error) {
    fail(error, options.json === true);
  } finally {
    endpoint?.close();
  }
}

/** How far a job is, on a terminal alone. */
function progressOn(out: NodeJS.WriteStream): (job: GetJobResult) => void {
  if (!out.isTTY) return () => {};
  return ({ state, progress: { current, total } }) => {
    const share = total === 0 ? '' : ` ${Math.floor((current / total) * 100)} %`;
    out.write(state === 'running' ? `\r${state}${share} \x1b[K` : '\r\x1b[K');
  };
}

function fail(error: unknown, isJson: boolean): void {
  process.exitCode = statusOf(error);
  if (isJson) {
    const told =
      error instanceof RpcFailure
        ? { code: error.code, message: error.message, data: error.data }
        : { message: (error as Error).message, data: { name: (error as Error).name } };
    process.stderr.write(`${JSON.stringify({ error: told })}\n`);
  } else process.stderr.write(failureText(error).replace(/^/gm, 'vmdiskctl: ').concat('\n'));
}

function isCommanders(error: unknown): error is CommanderError {
  return error instanceof Error && 'code' in error && String(error.code).startsWith('commander.');
}

main().catch((error: unknown) => {
  console.error(error);
  process.exit(exitStatus.failed);
});
