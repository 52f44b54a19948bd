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
      const isBatch = Array.isArray(message);
      const calls: readonly unknown[] = isBatch ? message : [message];
      for (const call of calls.filter(isNotification)) tellUnanswered(call, runner, peer);
      const asked = calls.filter((call) => !isNotification(call));
      if (asked.length === 0 && calls.length > 0) return undefined;
      const requests = asked.map(disarmed) as jayson.JSONRPCRequest[];
      const response: unknown = await server
        .callp((isBatch ? requests : requests[0]) as jayson.JSONRPCRequest, peer)
        .catch((error: unknown) => error);
      if (response === undefined) return undefined;
      const text = (part: unknown, call: unknown) => serialised(named(part, call), peer.log);
      // Each of a batch has an answer, at its place; an empty batch has one alone.
      return Array.isArray(response)
        ? `[${response.map((part, place) => text(part, asked[place])).join(',')}]\n`
        : `${text(response, message)}\n`;
    },
  };
}

/** The answer to a frame that is not JSON. */
export function parseErrorAnswer(): string {
  return answerWithoutId(parseError('Not JSON: a message is one JSON value in UTF-8 and a newline.'));
}

/**
 * A call as jayson should see it. jayson 5.0.0 gives no answer to a list within a batch, nor to `"id": null`, which it
 * takes for a notification.
 */
function disarmed(call: unknown): unknown {
  if (typeof call !== 'object' || call === null || Array.isArray(call)) return invalid;
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

/**
 * jayson's own errors have no `data`, by whose name callers tell errors apart, and no id. Only this one can come about
 * here.
 * @param call what it answers
 */
function named(response: unknown, call: unknown): unknown {
  const { error } = response as { error?: RpcError };
  if (error?.code !== rpcCodes.invalidRequest) return response;
  return { ...(response as object), id: idOf(call), error: invalidRequest(notARequest) };
}

/**
 * The id to answer under what is no request. JSON-RPC 2.0, section 5, asks for null only where the id could not be
 * detected; a caller with several calls at work would not know which of them has failed.
 */
function idOf(call: unknown): string | number | null {
  if (typeof call !== 'object' || call === null) return null;
  const { id } = call as { id?: unknown };
  return typeof id === 'string' || (typeof id === 'number' && isExact(id)) ? id : null;
}

function isNotification(call: unknown): call is { method: string } {
  if (typeof call !== 'object' || call === null || Object.hasOwn(call, 'id')) return false;
  const { jsonrpc, method } = call as { jsonrpc?: unknown; method?: unknown };
  return jsonrpc === '2.0' && typeof method === 'string';
}

/** Nobody would learn how it went: a change is refused, and reading is for nothing. JSON-RPC forbids an answer. */
function tellUnanswered({ method }: { method: string }, runner: VerbRunner, { log }: Peer): void {
  if (runner.has(method) && verbSchemas[method].changes) {
    log.warn({ verb: method }, 'a notification to a verb that changes something is refused: send an id');
  } else {
    log.debug({ verb: method.slice(0, 64) }, 'a notification is not executed');
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
