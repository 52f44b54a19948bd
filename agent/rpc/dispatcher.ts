/** JSON-RPC 2.0: from a parsed message to the text of its answer. The dispatching itself is jayson's. */
import jayson from 'jayson';
import { verbSchemas } from '../api/schemas.js';
import type { Log } from '../log.js';
import {
  answerWithoutId,
  errorAnswer,
  invalidRequest,
  parseError,
  type RpcError,
  rpcCodes,
} from './error-answer.js';
import type { Caller, VerbRunner } from './run-verb.js';

/** The other end of a connection, as the dispatcher sees it. */
export interface Peer extends Caller {
  readonly log: Log;
}

export interface Dispatcher {
  /**
   * The text to send, with its newline; undefined if the message asks for no answer. Never rejects.
   * @param message any JSON value
   */
  answer(message: unknown, peer: Peer): Promise<string | undefined>;
}

const notARequest =
  'Not a request: a message is {"jsonrpc": "2.0", "id": …, "method": "…", "params": {…}}, the id a string or a number of at most 2^53-1.';

type Done = (error?: RpcError | null, result?: unknown) => void;

/** Something that jayson takes for no request, to stand where it would be led astray by what the peer sent. */
const invalid = null;

export function createDispatcher(runner: VerbRunner, { batch }: { batch: number }): Dispatcher {
  // Every name has a method, so that unknown ones are answered (and logged) in the same place.
  const router = (name: string): jayson.Method =>
    new jayson.Method({
      useContext: true,
      handler: (params: unknown, peer: object, done: Done) => {
        runner.run(name, params, peer as Peer).then(
          (result) => done(null, result),
          (error: RpcError) => done(error),
        );
      },
    } as jayson.MethodOptions);
  const server = new jayson.Server({}, { router });

  return {
    async answer(message, peer) {
      if (Array.isArray(message) && message.length > batch) {
        return answerWithoutId(
          invalidRequest(
            `A batch has at most ${batch} calls; this one has ${message.length}. None was executed.`,
          ),
        );
      }
      const request = withoutTraps(message, (name) => refuseNotification(name, runner, peer));
      if (request === undefined) return undefined;
      const response: unknown = await server
        .callp(request as jayson.JSONRPCRequest, peer)
        .catch((error: unknown) => error);
      if (response === undefined) return undefined;
      const text = (part: unknown) => serialised(withName(part), peer.log);
      return Array.isArray(response) ? `[${response.map(text).join(',')}]\n` : `${text(response)}\n`;
    },
  };
}

/** The answer to a frame that is not JSON. */
export function parseErrorAnswer(): string {
  return answerWithoutId(parseError('Not JSON: a message is one JSON value in UTF-8 and a newline.'));
}

/**
 * The message as jayson should see it; undefined if nothing of it is to be executed. jayson 5.0.0 gives no answer
 * to a list within a batch, nor to `"id": null`, which it takes for a notification.
 */
function withoutTraps(message: unknown, refuse: (method: string) => void): object | undefined {
  const isExecuted = (call: unknown): boolean => {
    if (!isNotification(call)) return true;
    refuse(call.method);
    return false;
  };
  if (!Array.isArray(message)) {
    if (!isExecuted(message)) return undefined;
    return disarmed(message) as object;
  }
  const calls = message.filter(isExecuted);
  if (message.length > 0 && calls.length === 0) return undefined;
  return calls.map((call: unknown) => (Array.isArray(call) ? invalid : disarmed(call)));
}

function disarmed(call: unknown): unknown {
  if (typeof call !== 'object' || call === null) return invalid;
  const { id } = call as { id?: unknown };
  return id === null || (typeof id === 'number' && !isExact(id)) ? invalid : call;
}

/**
 * Whether a number comes back as the caller wrote it. 1e400 is read as Infinity, which JSON cannot hold, and of integers
 * two programs read the same number up to 2^53-1 only (RFC 8259, section 6): the answer would bear another's id.
 */
function isExact(id: number): boolean {
  return Math.abs(id) <= Number.MAX_SAFE_INTEGER;
}

/** jayson's own errors have no `data`, by whose name callers tell errors apart. Only this one can come about here. */
function withName(response: unknown): unknown {
  const { error } = response as { error?: RpcError };
  if (error?.code !== rpcCodes.invalidRequest) return response;
  return { ...(response as object), error: invalidRequest(notARequest) };
}

function isNotification(call: unknown): call is { method: string } {
  if (typeof call !== 'object' || call === null || Object.hasOwn(call, 'id')) return false;
  const { jsonrpc, method } = call as { jsonrpc?: unknown; method?: unknown };
  return jsonrpc === '2.0' && typeof method === 'string';
}

/** Nobody would learn how it went: a change is refused, and reading is for nothing. JSON-RPC forbids an answer. */
function refuseNotification(name: string, runner: VerbRunner, { log }: Peer): void {
  if (runner.has(name) && verbSchemas[name].changes) {
    log.warn({ verb: name }, 'a notification to a verb that changes something is refused: send an id');
  } else {
    log.debug({ verb: name.slice(0, 64) }, 'a notification is not executed');
  }
}

/** A response as text. What JSON cannot hold (a BigInt, a cycle) is an internal error and not a broken connection. */
function serialised(response: unknown, log: Log): string {
  try {
    return JSON.stringify(response);
  } catch (error) {
    const { id = null } = response as { id?: unknown };
    const reference = `json-${Date.now().toString(36)}`;
    log.error({ err: error, ref: reference }, 'a result cannot be written as JSON');
    return JSON.stringify({ jsonrpc: '2.0', id, error: errorAnswer(error, reference) });
  }
}
