/** What JSON-RPC 2.0 and the API's conventions say is answered to a frame; shares no code with the daemon. */
import { isUtf8 } from 'node:buffer';

/** Limits that the daemon is started with. */
export interface EdgeModelLimits {
  readonly frameBytes: number;
  readonly batch: number;
  /** Frames in a row that are no JSON, after which it hangs up. */
  readonly brokenFrames: number;
}

/** One answer: the id that it must bear, and of which verb it is, where it is a call. */
export interface ExpectedAnswer {
  readonly id: string | number | null;
  /** The verb whose result it may be; null where only an error will do. */
  readonly method: string | null;
}

/** A message is answered by one object, or by a list. */
export type Expected = ExpectedAnswer | readonly ExpectedAnswer[];

const refusal: ExpectedAnswer = { id: null, method: null };

/** The answers to what a client has sent, in no order. An unfinished frame at the end is none. */
export function expectedAnswers(sent: Buffer, limits: EdgeModelLimits): Expected[] {
  const answers: Expected[] = [];
  let broken = 0;
  for (let start = 0; start < sent.length; ) {
    const newline = sent.indexOf(0x0a, start);
    const end = newline === -1 ? sent.length : newline;
    if (end - start > limits.frameBytes) return [...answers, refusal]; // and that is the end of the connection
    if (newline === -1) return answers;
    const frame = sent.subarray(start, end);
    start = end + 1;
    if (frame.length === 0 || (frame.length === 1 && frame[0] === 0x0d)) continue;
    const message = parsed(frame);
    if (message === undefined) {
      answers.push(refusal);
      broken += 1;
      if (broken === limits.brokenFrames) return answers;
      continue;
    }
    broken = 0;
    const answer = toMessage(message.value, limits);
    if (answer !== undefined) answers.push(answer);
  }
  return answers;
}

function parsed(frame: Buffer): { value: unknown } | undefined {
  if (!isUtf8(frame)) return undefined;
  try {
    return { value: JSON.parse(frame.toString('utf8')) };
  } catch {
    return undefined;
  }
}

function toMessage(value: unknown, { batch }: EdgeModelLimits): Expected | undefined {
  if (!Array.isArray(value)) return toCall(value);
  if (value.length === 0 || value.length > batch) return refusal;
  const answers = value.map(toCall).filter((answer) => answer !== undefined);
  return answers.length === 0 ? undefined : answers;
}

/** Section 4: a notification is a request without an id, and is not answered. What is no request is, section 5. */
function toCall(value: unknown): ExpectedAnswer | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return refusal;
  const { jsonrpc, method, params } = value as Record<string, unknown>;
  const isRequest = jsonrpc === '2.0' && typeof method === 'string';
  if (!Object.hasOwn(value, 'id')) return isRequest ? undefined : refusal;
  const { id } = value as { id: unknown };
  if (!isId(id)) return refusal;
  const hasParams = params === undefined || (typeof params === 'object' && params !== null);
  return { id, method: isRequest && hasParams ? method : null };
}

/** RFC 8259, section 6: beyond 2^53-1 two programs may read two numbers, and the caller would not know its own id. */
function isId(id: unknown): id is string | number {
  if (typeof id === 'string') return true;
  return typeof id === 'number' && Number.isFinite(id) && Math.abs(id) <= Number.MAX_SAFE_INTEGER;
}
