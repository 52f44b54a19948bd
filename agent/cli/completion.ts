/** Completion for bash: subcommands, their options, and the words that an option takes. */
import type { Command, Option } from 'commander';
import { resolve } from '../api/resolve.js';
import type { VerbSchema } from '../api/schema.js';
import { verbSchemas } from '../api/schemas.js';
import { kebab } from './names.js';

/**
 * A script for bash that needs nothing else, made from the very command that it completes. Where it knows no words, bash
 * offers files.
 */
export function bashCompletion(program: Command): string {
  const globals = flags(program.options);
  const cases = program.commands.map(
    (command) => `    ${command.name()}) words='${[...flags(command.options), ...globals].join(' ')}' ;;`,
  );
  const values = Object.values<VerbSchema>(verbSchemas).flatMap(wordCases);
  const valued = [program, ...program.commands].flatMap(({ options }) =>
    options.filter(takesValue).map(flagOf),
  );
  return `# bash completion for vmdiskctl, made by \`vmdiskctl completion\`
_vmdiskctl() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]} command='' words='' skip='' word
  COMPREPLY=()
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    if [[ $skip ]]; then skip=''; continue; fi
    case $word in
    ${[...new Set(valued)].join('|')}) skip=1 ;;
    -*) ;;
    *) command=$word; break ;;
    esac
  done
  case $command$previous in
${values.join('\n')}
  esac
  if [[ ! $words ]]; then
    case $previous in
    ${[...new Set(valued)].join('|')}) return ;;
    esac
    case $command in
${cases.join('\n')}
    help) words='${program.commands.map((command) => command.name()).join(' ')}' ;;
    '') words='${[...program.commands.map((command) => command.name()), 'help', ...globals].join(' ')}' ;;
    esac
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -o bashdefault -o default -F _vmdiskctl vmdiskctl
`;
}

function flagOf({ long }: Option): string {
  return String(long);
}

function flags(options: readonly Option[]): string[] {
  return [...options.map(flagOf), '--help'];
}

function takesValue(option: Option): boolean {
  return option.required || option.optional;
}

/** For each option of a verb that takes one of some words: which. */
function wordCases(verb: VerbSchema): string[] {
  return Object.entries(verb.params.properties).flatMap(([name, schema]) => {
    const words = (resolve(schema).enum ?? []) as string[];
    if (words.length === 0) return [];
    return [`  ${kebab(verb.name)}--${kebab(name)}) words='${words.join(' ')}' ;;`];
  });
}
