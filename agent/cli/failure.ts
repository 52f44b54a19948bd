/** How a command fails: in which words, and with which exit status. */
import { kebab } from './names.js';
import { printable } from './printable.js';

/** The exit statuses, which scripts rely on. */
export const exitStatus = {
  done: 0,
  /** The daemon has answered with an error that stands, or the job that was waited for has failed. */
  failed: 1,
  /** The command line, or a file or setting that it names, is not right: nothing was done. */
  usage: 2,
  /** No answer: the daemon cannot be reached, or the connection was lost. A verb that has begun finishes all the same. */
  noAnswer: 3,
  /** The daemon has answered with an error that may be gone later: the same command may be given again. */
  retryable: 4,
} as const;

/** The daemon's answer is an error. */
export class RpcFailure extends Error {
  override readonly name = 'RpcFailure';

  constructor(
    readonly code: number,
    message: string,
    readonly data: Readonly<Record<string, unknown>>,
  ) {
    super(message);
  }

  get retryable(): boolean {
    return this.data.retryable === true;
  }
}

/** There is no answer. */
export class NoAnswer extends Error {
  override readonly name = 'NoAnswer';
}

/** The command line asks for something that cannot be. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** A job that was waited for has not come to a good end. */
export class JobFailed extends Error {
  override readonly name = 'JobFailed';
}

export function statusOf(error: unknown): number {
  if (error instanceof RpcFailure && Array.isArray(error.data.issues)) return exitStatus.usage;
  if (error instanceof RpcFailure) return error.retryable ? exitStatus.retryable : exitStatus.failed;
  if (error instanceof NoAnswer) return exitStatus.noAnswer;
  return error instanceof UsageError ? exitStatus.usage : exitStatus.failed;
}

/** The lines that people read: `NoSuchVM: There is no VM "x"; …`, and what libvirt or a program has said to it. */
export function failureText(error: unknown): string {
  if (!(error instanceof RpcFailure)) return error instanceof Error ? error.message : String(error);
  const { name, libvirt, stderr, issues } = error.data;
  if (Array.isArray(issues)) return issues.map(issueText).join('\n');
  const said = (libvirt as { message?: unknown } | undefined)?.message;
  const lines = [
    `${String(name ?? error.code)}: ${error.message}`,
    // Most sentences have libvirt's words in them.
    ...(typeof said === 'string' && !error.message.includes(said) ? [`libvirt: ${said}`] : []),
    ...(typeof stderr === 'string' && !error.message.includes(stderr.trim()) ? [stderr.trimEnd()] : []),
    ...(error.retryable ? ['The same command may succeed later (--retry SECONDS goes on trying).'] : []),
  ];
  return printable(lines.join('\n'));
}

/** A refused param by its option: `--since checkpoint is required`. */
function issueText(issue: { path?: unknown; message?: unknown }): string {
  const [, param, ...inner] = String(issue.path).split('/');
  const place =
    param === undefined ? '' : `--${kebab(param)}${inner.length > 0 ? ` ${inner.join('.')}` : ''} `;
  // A rule over several params names them as the API does.
  const message = String(issue.message).replace(/\b[a-z]+[A-Z]\w*/g, (name) => `--${kebab(name)}`);
  return printable(place === '' ? message : `${place}${String(issue.message)}`);
}
