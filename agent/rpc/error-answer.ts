/** From what a verb throws to the error that a caller sees. */
import { AgentError, InvalidParams } from '../errors.js';

/** The `error` member of a JSON-RPC answer. */
export interface RpcError {
  readonly code: number;
  readonly message: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

/** JSON-RPC 2.0, section 5.1. */
export const rpcCodes = {
  parseError: -32700,
  invalidRequest: -32600,
  methodNotFound: -32601,
  invalidParams: -32602,
  internalError: -32603,
} as const;

/** The most of a program's own text (stderr) that goes into an answer, from its end, where the reason is. */
const stderrLength = 4096;

/**
 * @param reference stands in the log beside what is kept from the caller: an error that is none of ours says
 *   nothing of itself, since its message may hold paths, keys or a stack.
 */
export function errorAnswer(error: unknown, reference: string): RpcError {
  if (error instanceof AgentError) {
    const { stderr, ...details } = error.details;
    return {
      code: error.code,
      message: error.message,
      data: {
        name: error.name,
        retryable: error.retryable,
        ...details,
        ...(stderr === undefined ? {} : { stderr: stderr.slice(-stderrLength) }),
      },
    };
  }
  if (error instanceof InvalidParams) {
    return {
      code: rpcCodes.invalidParams,
      message: error.message,
      data: { name: error.name, retryable: false, issues: error.issues },
    };
  }
  return {
    code: rpcCodes.internalError,
    message: `Internal error: the daemon's log has the cause under the reference ${reference}.`,
    data: { name: 'InternalError', retryable: false, reference },
  };
}

export function methodNotFound(name: string): RpcError {
  return {
    code: rpcCodes.methodNotFound,
    message: `There is no verb ${JSON.stringify(name.slice(0, 64))}; rpc.discover lists those that this daemon has.`,
    data: { name: 'MethodNotFound', retryable: false },
  };
}

export function invalidRequest(message: string): RpcError {
  return { code: rpcCodes.invalidRequest, message, data: { name: 'InvalidRequest', retryable: false } };
}

export function parseError(message: string): RpcError {
  return { code: rpcCodes.parseError, message, data: { name: 'ParseError', retryable: false } };
}

/** A whole answer to a message whose id is not known. */
export function answerWithoutId(error: RpcError): string {
  return `${JSON.stringify({ jsonrpc: '2.0', id: null, error })}\n`;
}
