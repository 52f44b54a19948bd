/** Runs one verb: params checked, a place among those at work, a deadline, a line in the log. */
import { randomBytes } from 'node:crypto';
import type { Identity } from '../access/identity.js';
import { verbSchemas } from '../api/schemas.js';
import { AgentError } from '../errors.js';
import type { Log } from '../log.js';
import type { Call, Verb, VerbName, VerbTable } from '../verbs/verb.js';
import { discoverDocument } from './discover.js';
import { errorAnswer, methodNotFound, type RpcError } from './error-answer.js';
import type { EdgeLimits, RpcLimits } from './limits.js';
import { OutcomeLog } from './outcome-log.js';
import { createValidator, type Validator } from './validate.js';

export type AnyVerb = (params: Record<string, unknown>, call: Call) => Promise<unknown>;

export interface VerbRunnerOptions {
  readonly verbs: VerbTable;
  readonly limits: Pick<RpcLimits, 'verbs' | 'deadlineSeconds'>;
  readonly edge: EdgeLimits;
  readonly log: Log;
  /** Whether the daemon has not found its things again yet after a start. */
  readonly recovering: () => boolean;
  /** Whether the caller may do that. @throws AgentError `NotAuthorized` */
  readonly authorize: Authorize;
  /** Check results against the schemas too; a fault is an internal error. For tests: it costs time on long maps. */
  readonly checkResults: boolean;
  readonly observe: Observe;
}

/** Is told of each call that has been answered. @param outcome `done`, or the error's name */
export type Observe = (verb: VerbName | 'unknown', outcome: string, ms: number) => void;

/** @param params checked against the schema */
export type Authorize = (
  name: VerbName,
  params: Record<string, unknown>,
  identity: Identity,
  signal: AbortSignal,
) => Promise<void>;

/** Who calls, on which connection. */
export interface Caller {
  readonly identity: Identity;
  /** See `Call.callerEnded`. */
  readonly ended: AbortSignal;
  /** What all verbs but those that are always admitted are answered with on this connection; undefined: none. */
  readonly refusal: AgentError | undefined;
}

export class VerbRunner {
  readonly #options: VerbRunnerOptions;
  readonly #validator: Validator;
  /** Own verbs only: a method named `constructor` must find nothing. */
  readonly #verbs: ReadonlyMap<string, AnyVerb>;
  readonly #atWork = new Set<Promise<unknown>>();
  /** Those at work that count towards the limit. */
  #places = 0;

  constructor(options: VerbRunnerOptions) {
    this.#options = options;
    this.#validator = createValidator(options.edge);
    const verbs = new Map<string, AnyVerb>();
    for (const [name, verb] of Object.entries(options.verbs)) if (verb) verbs.set(name, verb as AnyVerb);
    const names = (Object.keys(verbSchemas) as VerbName[]).filter(
      (name) => verbs.has(name) || name === 'rpc.discover',
    );
    const document = discoverDocument(names);
    const discover: Verb<'rpc.discover'> = async () => document;
    verbs.set('rpc.discover', discover as AnyVerb);
    this.#verbs = verbs;
  }

  has(name: string): name is VerbName {
    return this.#verbs.has(name);
  }

  /** The verb's result. @throws RpcError, ready to be sent, and nothing else */
  async run(name: string, params: unknown, { identity, ended, refusal }: Caller): Promise<unknown> {
    const reference = randomBytes(6).toString('hex');
    const log = this.#options.log.child({ verb: name.slice(0, 64), ref: reference, identity: identity.name });
    const verb = this.#verbs.get(name);
    if (verb === undefined || !this.has(name)) {
      log.info({ outcome: 'failed', error: 'MethodNotFound' }, 'no such verb');
      this.#options.observe('unknown', 'MethodNotFound', 0);
      throw methodNotFound(name);
    }
    const began = performance.now();
    const observe = (how: string): void => this.#options.observe(name, how, performance.now() - began);
    const outcome = new OutcomeLog(log, name, reference);
    try {
      const checked: unknown = params ?? {};
      this.#validator.checkParams(name, checked);
      outcome.isAbout(checked);
      if (refusal !== undefined && !isAlwaysAdmitted(name)) throw refusal;
      const call = { reference, identity, log, callerEnded: ended };
      const result = await this.#withDeadline(name, verb, checked, call, outcome);
      const fault = this.#options.checkResults ? this.#validator.faultOfResult(name, result) : undefined;
      if (fault !== undefined) throw new Error(`the result is not as the schema has it: ${fault}`);
      outcome.done('verb');
      observe('done');
      return result;
    } catch (error) {
      outcome.failed(error, 'verb');
      const answer: RpcError = errorAnswer(error, reference);
      observe(String(answer.data?.name));
      throw answer;
    }
  }

  /** Resolves when no verb is at work. */
  async idle(): Promise<void> {
    while (this.#atWork.size > 0) await Promise.allSettled(this.#atWork);
  }

  async #withDeadline(
    name: VerbName,
    verb: AnyVerb,
    params: Record<string, unknown>,
    call: Omit<Call, 'signal'>,
    outcome: OutcomeLog,
  ): Promise<unknown> {
    const { limits, edge, recovering } = this.#options;
    const about = detailsOf(params);
    const admitted = isAlwaysAdmitted(name);
    if (!admitted && recovering()) {
      throw new AgentError(
        'RecoveryInProgress',
        'The daemon has just started and is looking after what an earlier run has left; try again in a moment.',
        about,
      );
    }
    const place = admitted ? 0 : 1;
    if (place > 0 && this.#places >= limits.verbs) {
      throw new AgentError(
        'LimitReached',
        `${limits.verbs} verbs are at work, which is the limit; try again later.`,
      );
    }
    const seconds = limits.deadlineSeconds[name];
    const timeout = new AgentError(
      'Timeout',
      `${name} did not finish within ${seconds} s and is being undone; the same call may be made again.`,
      about,
    );
    const controller = new AbortController();
    // An async wrapper: what a verb throws before its first await is a rejection too.
    const work = (async () => {
      await this.#options.authorize(name, params, call.identity, controller.signal);
      return verb(params, { ...call, signal: controller.signal });
    })();
    this.#atWork.add(work);
    this.#places += place;

    return new Promise((resolve, reject) => {
      let answered = false;
      let grace: NodeJS.Timeout | undefined;
      const deadline = setTimeout(() => {
        controller.abort(timeout);
        grace = setTimeout(() => {
          answered = true;
          reject(timeout);
        }, edge.graceSeconds * 1000);
      }, seconds * 1000);
      const settle = (answer: () => void, late: (text: string) => void) => {
        clearTimeout(deadline);
        clearTimeout(grace);
        this.#atWork.delete(work);
        this.#places -= place;
        if (answered) late('the verb has ended now, long after its deadline');
        else answer();
      };
      work.then(
        (result) =>
          settle(
            () => resolve(result),
            (text) => outcome.done(text),
          ),
        (error: unknown) => {
          // Whatever a cancelled step calls its end, the caller is told the reason.
          const reason = isAbort(error) && controller.signal.aborted ? timeout : error;
          settle(
            () => reject(reason),
            (text) => outcome.failed(reason, text),
          );
        },
      );
    });
  }
}

function isAlwaysAdmitted(name: VerbName): boolean {
  return verbSchemas[name].alwaysAdmitted === true;
}

/** What an error says besides its sentence of what the call was about. */
function detailsOf(params: Record<string, unknown>): { vmId?: string; disk?: string; exportId?: string } {
  const named = ['vmId', 'disk', 'exportId'].filter((key) => typeof params[key] === 'string');
  return Object.fromEntries(named.map((key) => [key, params[key]]));
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}
