/**
 * The way to journald's socket. It takes datagrams, which Node does not have for UNIX sockets: a few lines of Perl, which every
 * Debian and every host with libvirt has, pass entries on. docs/decisions/logs.md
 */
import { type ChildProcess, spawn } from 'node:child_process';

export const JOURNAL_SOCKET = '/run/systemd/journal/socket';

/**
 * Each entry comes with its length before it (4 bytes, network order) and is answered with one byte when the journal has it. At
 * the end of its input, which is ours, what is still to be read has been passed on.
 */
const PERL = `use strict; use Socket;
socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die "socket: $!\\n";
connect($s, pack_sockaddr_un($ARGV[0])) or die "$ARGV[0]: $!\\n";
binmode STDIN; $| = 1; $0 = 'vmdiskd: to the journal';
while (read(STDIN, my $head, 4) == 4) {
  my $length = unpack('N', $head);
  read(STDIN, my $entry, $length) == $length or last;
  defined(send($s, $entry, 0)) or die "send: $!\\n";
  syswrite(STDOUT, '.');
}`;

/** Entries that the journal has not got yet; beyond it they are written the other way. */
const MAX_WAITING = 1000;
/** One relay after another that dies: so many, then no more for so long. */
const STARTS = 5;
const REST_MS = 3_600_000;
const AGAIN_MS = 5000;
/** How long the daemon's end waits for the journal to have the last words. */
const LINGER_MS = 2000;

export interface JournalRelayOptions {
  /** Takes the lines that cannot go this way, and those that a relay has died over: perhaps twice, never not at all. */
  readonly fallback: (line: string) => void;
  readonly socket?: string;
  readonly program?: string;
}

export class JournalRelay {
  readonly #options: Required<JournalRelayOptions>;
  #child: ChildProcess | undefined;
  /** The lines of entries that the journal has not got yet. */
  #waiting: string[] = [];
  /** Keeps the process for a moment, until it has. */
  #linger: NodeJS.Timeout | undefined;
  #starts = 0;
  #again = 0;

  constructor({ fallback, socket = JOURNAL_SOCKET, program = '/usr/bin/perl' }: JournalRelayOptions) {
    this.#options = { fallback, socket, program };
    this.#start();
  }

  /**
   * Passes an entry on: it is in the kernel when this returns, so that a crash the next moment does not lose it, or has been
   * written the other way.
   * @param line the same for `fallback`
   */
  write(entry: Buffer, line: string): void {
    if (this.#child === undefined && performance.now() >= this.#again) this.#start();
    const input = this.#child?.stdin;
    // A relay that does not keep up: what Node itself would hold is lost in a crash.
    if (!input || input.writableLength > 0 || this.#waiting.length >= MAX_WAITING) {
      this.#options.fallback(line);
      return;
    }
    const head = Buffer.alloc(4);
    head.writeUInt32BE(entry.length);
    this.#waiting.push(line);
    this.#linger ??= setTimeout(() => {
      this.#linger = undefined;
    }, LINGER_MS);
    input.write(Buffer.concat([head, entry]));
  }

  #settled(): void {
    if (this.#waiting.length > 0) return;
    clearTimeout(this.#linger);
    this.#linger = undefined;
  }

  #start(): void {
    const { program, socket } = this.#options;
    this.#starts += 1;
    const child = spawn(program, ['-e', PERL, socket], {
      stdio: ['pipe', 'pipe', 'inherit'],
      cwd: '/',
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' },
    });
    const over = () => {
      if (this.#child === child) this.#child = undefined;
      const rests = this.#starts >= STARTS;
      if (rests) this.#starts = 0;
      this.#again = performance.now() + (rests ? REST_MS : AGAIN_MS);
      for (const line of this.#waiting.splice(0)) this.#options.fallback(line);
      this.#settled();
    };
    child.on('error', over);
    // One that cannot be run at all has no number.
    if (child.pid === undefined) return;
    this.#child = child;
    child.once('exit', over);
    child.stdin?.on('error', () => {}); // it has died, which `exit` says
    child.stdout?.on('data', (answers: Buffer) => {
      this.#waiting.splice(0, answers.length);
      this.#settled();
    });
    // None of it keeps the daemon from ending for longer; what is in the kernel by then the relay still reads.
    child.unref();
    for (const stream of [child.stdin, child.stdout])
      (stream as unknown as { unref(): void } | null)?.unref();
  }
}
