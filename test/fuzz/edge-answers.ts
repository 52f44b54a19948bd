/** Holds what the daemon answered against what it must answer. */
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
  for (const line of lines) {
    const got = JSON.parse(line) as Answer | Answer[];
    const at = wanted.findIndex((one) => keyOf(got) === keyOf(one as Answer | Answer[]));
    const [found] = at === -1 ? [] : wanted.splice(at, 1);
    if (found === undefined) throw new Error(`an answer that nothing asked for: ${line.slice(0, 500)}`);
    const parts = [found].flat() as ExpectedAnswer[];
    for (const answer of [got].flat()) {
      const same = parts.findIndex(({ id }) => idOf(id) === idOf(answer.id));
      const [part] = parts.splice(same, 1);
      if (part !== undefined) checkAnswer(answer, part);
    }
  }
  if (wanted.length > 0) {
    throw new Error(`no answer for ${JSON.stringify(wanted).slice(0, 500)}; there were ${lines.length}`);
  }
}

const idOf = (id: unknown): string => JSON.stringify(id) ?? 'absent';

/** What tells answers apart: the ids, of a list all of them. */
function keyOf(answer: Answer | Answer[]): string {
  if (!Array.isArray(answer)) return idOf(answer.id);
  return `[${answer
    .map(({ id }) => idOf(id))
    .sort()
    .join()}]`;
}

function checkAnswer(answer: Answer, { method }: ExpectedAnswer): void {
  const fault = answer.error === undefined ? faultOfResult(answer, method) : faultOfError(answer);
  if (fault !== undefined) throw new Error(`${fault}: ${JSON.stringify(answer).slice(0, 1000)}`);
}

function faultOfResult(answer: Answer, method: string | null): string | undefined {
  if (Object.keys(answer).sort().join() !== 'id,jsonrpc,result' || answer.jsonrpc !== '2.0')
    return 'no answer of JSON-RPC';
  if (method === null) return 'a result where only an error will do';
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
