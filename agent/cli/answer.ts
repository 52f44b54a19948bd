/** What every way to a daemon has: calls, the texts that they are, and the words where none is answered. */
import { NoAnswer, RpcFailure } from './failure.js';

/** Answers verbs, one at a time. */
export interface Endpoint {
  /** @throws RpcFailure, NoAnswer */
  call(method: string, params: object, seconds: number): Promise<unknown>;
  /** Idempotent. */
  close(): void;
}

/** Bytes that an answer may have: the daemon holds back no more than 32 MiB. */
export const MAX_ANSWER = 64 * 1024 * 1024;

export function requestText(method: string, params: object): string {
  return JSON.stringify({ jsonrpc: '2.0', id: 1, method, params });
}

/** @throws RpcFailure where the daemon answers with an error; NoAnswer where this is no answer at all */
export function resultOf(text: string, where: string): unknown {
  let answer: { result?: unknown; error?: { code: number; message: string; data?: Record<string, unknown> } };
  try {
    answer = JSON.parse(text);
  } catch (cause) {
    throw new NoAnswer(`${where}: what answers there is no vmdiskd (${text.slice(0, 80).trim()}).`, {
      cause,
    });
  }
  const { result, error } = answer ?? {};
  if (error !== undefined) throw new RpcFailure(error.code, error.message, error.data ?? {});
  if (result === undefined) throw new NoAnswer(`${where}: what answers there is no vmdiskd.`);
  return result;
}

/** The words for a call that was given up. The verb goes on: see "Conventions" of the API. */
export function tooLate(method: string, where: string, seconds: number): NoAnswer {
  return new NoAnswer(
    `${where} has not answered ${method} within ${seconds} s (--timeout). What it does is finished or undone there; ` +
      'the same command again tells how it went.',
  );
}
