/** Holds what the daemon answered against what it must answer. */
import { verbSchemas } from '../../agent/api/schemas.js';
import { errorRegistry } from '../../agent/errors.js';
import { edgeLimits } from '../../agent/rpc/limits.js';
import { createValidator } from '../../agent/rpc/validate.js';
import type { VerbName } from '../../agent/verbs/verb.js';
import type { Expected, ExpectedAnswer } from './edge-model.js';

interface Answer {
  jsonrpc?: unknown;
  id?: unknown;
  result?: unknown;
  error?: { code?: unknown; message?: unknown; data?: { name?: unknown; retryable?: unknown } };
}

/** JSON-RPC's own, which are no faults of the daemon (so without InternalError). */
const codes = new Map<string, number>([
  ...Object.entries(errorRegistry).map(([name, { code }]) => [name, code] as const),
  ['ParseError', -32700],
  ['InvalidRequest', -32600],
  ['MethodNotFound', -32601],
  ['InvalidParams', -32602],
]);

const validator = createValidator(edgeLimits);

/** @throws Error unless each expected answer is there exactly once, and is a right one. Their order is free. */
export function checkAnswers(lines: readonly string[], expected: readonly Expected[]): void {
  const wanted = [...expected];
  for (const answer of pickyFirst(lines.map((line) => JSON.parse(line) as Answer | Answer[]))) {
    const found = take(wanted, answer, keyOf, faultOfAnswers);
    if (found === undefined) {
      throw new Error(`an answer that nothing asked for: ${JSON.stringify(answer).slice(0, 500)}`);
    }
    const fault = faultOfAnswers(answer, found);
    if (fault !== undefined) throw new Error(fault);
  }
  if (wanted.length > 0) {
    throw new Error(`no answer for ${JSON.stringify(wanted).slice(0, 500)}; there were ${lines.length}`);
  }
}

/** Calls of one connection may share an id: an error answers any of them, a result only the one whose verb gives such. */
function pickyFirst<One extends Answer | Answer[]>(answers: readonly One[]): One[] {
  const errors = (answer: Answer | Answer[]): number =>
    [answer].flat().filter(({ error }) => error !== undefined).length;
  return [...answers].sort((a, b) => errors(a) - errors(b));
}

/** Takes out what an answer is for: of those with its key, one that it is right for where there is one. */
function take<Got, Want>(
  wanted: Want[],
  got: Got,
  keyOf: (one: Got | Want) => string,
  faultOf: (got: Got, want: Want) => string | undefined,
): Want | undefined {
  const key = keyOf(got);
  const candidates = wanted.filter((one) => keyOf(one) === key);
  const found = candidates.find((one) => faultOf(got, one) === undefined) ?? candidates[0];
  if (found !== undefined) wanted.splice(wanted.indexOf(found), 1);
  return found;
}

/** What is wrong with an answer, or with a list of them. */
function faultOfAnswers(got: Answer | Answer[], expected: Expected): string | undefined {
  const parts = [expected].flat() as ExpectedAnswer[];
  for (const answer of pickyFirst([got].flat())) {
    const part = take(parts, answer, ({ id }) => idOf(id), faultOfOne);
    const fault = part === undefined ? 'an answer too many' : faultOfOne(answer, part);
    if (fault !== undefined) return `${fault}: ${JSON.stringify(answer).slice(0, 1000)}`;
  }
  return undefined;
}

const idOf = (id: unknown): string => JSON.stringify(id) ?? 'absent';

/** What tells answers apart: the ids, of a list all of them. */
function keyOf(answer: Answer | Answer[] | Expected): string {
  const ids = ([answer].flat() as { id?: unknown }[]).map(({ id }) => idOf(id)).sort();
  return Array.isArray(answer) ? `[${ids}]` : `${ids}`;
}

function faultOfOne(answer: Answer, { method }: ExpectedAnswer): string | undefined {
  return answer.error === undefined ? faultOfResult(answer, method) : faultOfError(answer);
}

function faultOfResult(answer: Answer, method: string | null): string | undefined {
  if (Object.keys(answer).sort().join() !== 'id,jsonrpc,result' || answer.jsonrpc !== '2.0')
    return 'no answer of JSON-RPC';
  if (method === null || !Object.hasOwn(verbSchemas, method)) return 'a result where only an error will do';
  return validator.faultOfResult(method as VerbName, answer.result);
}

function faultOfError(answer: Answer): string | undefined {
  if (Object.keys(answer).sort().join() !== 'error,id,jsonrpc' || answer.jsonrpc !== '2.0')
    return 'no answer of JSON-RPC';
  const { code, message, data } = answer.error ?? {};
  if (typeof message !== 'string' || message === '') return 'an error without a sentence';
  if (typeof data?.name !== 'string' || typeof data.retryable !== 'boolean')
    return 'an error without name and retryable';
  return codes.get(data.name) === code ? undefined : `an error that no caller should see`;
}
