/** `vmdiskctl` as commander knows it: one subcommand a verb, made from the schemas. */
import { Command } from 'commander';
import type { Verbs } from '../api/generated.js';
import type { VerbSchema } from '../api/schema.js';
import { apiInfo, verbSchemas } from '../api/schemas.js';
import { bashCompletion } from './completion.js';
import { moreHelp, shortSummary, summaryText } from './help.js';
import { kebab } from './names.js';
import { optionsOf } from './options.js';
import { addGlobalOptions, type GlobalOptions } from './settings.js';
import { answersJob } from './wait-job.js';

/** Options of a subcommand that are no params. */
export interface OwnOptions {
  /** Stay until the job has ended. */
  readonly wait?: true;
  /** Go on with the next events. */
  readonly follow?: true;
}

/** What the command line asks for. */
export interface Ask {
  readonly verb: keyof Verbs;
  readonly params: Record<string, unknown>;
  readonly options: GlobalOptions & OwnOptions;
}

export const description = `Calls the verbs of vmdiskd, the host agent that gives access to VMs' disks over NBD.`;

/** What stands below the list of subcommands; the man page says it at length. */
const EPILOGUE = `
Answers are shown for people, or with --json as the daemon sends them. Exit status: 0 done; 1 refused or failed;
2 a mistake in the command line; 3 no answer from the daemon; 4 refused now, and may succeed later.`;

/** @param act what is done with what the command line asks for */
export function createProgram(act: (ask: Ask) => Promise<void>): Command {
  const program = new Command('vmdiskctl')
    .description(description)
    .version(apiInfo.version)
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'vmdiskctl: ')) })
    .addHelpText('after', EPILOGUE)
    .helpCommand('help [command]', 'show the help of a command');
  addGlobalOptions(program);
  for (const verb of Object.values<VerbSchema>(verbSchemas)) addVerb(program, verb, act);
  program
    .command('completion')
    .summary('Print what completes this command in bash')
    .description('Prints what completes this command in bash: eval "$(vmdiskctl completion)".')
    .action(() => void process.stdout.write(bashCompletion(program)));
  return program;
}

function addVerb(program: Command, verb: VerbSchema, act: (ask: Ask) => Promise<void>): void {
  const params: Record<string, unknown> = {};
  const command = program
    .command(kebab(verb.name))
    .summary(shortSummary(verb))
    .description(summaryText(verb))
    .configureHelp({ showGlobalOptions: true })
    .addHelpText('after', moreHelp(verb))
    .action(() => act({ verb: verb.name as keyof Verbs, params, options: command.optsWithGlobals() }));
  for (const option of optionsOf(verb, params)) command.addOption(option);
  if (answersJob(verb)) {
    command.option('--wait', 'stay until the job has ended; exit status 1 if it has failed or was cancelled');
  }
  if (verb.name === 'waitEvents') {
    command.option('--follow', 'go on with the next events, until interrupted; with --json one event a line');
  }
}
