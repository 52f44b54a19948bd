/** How long one request takes that nothing else is in flight beside: what a client that walks a file system sees. */
import { execa } from 'execa';

const DEADLINE_MS = 120_000;

/** Milliseconds. */
interface Spread {
  median: number;
  p95: number;
}

export interface Latency {
  read: Spread;
  status: Spread;
}

/** libnbd's Python binding; the last of its output is the milliseconds of each request. */
const SCRIPT = `
import json, nbd, sys, time
uri, count = sys.argv[1], int(sys.argv[2])
h = nbd.NBD()
h.set_uri_allow_local_file(True)
h.add_meta_context("base:allocation")
h.connect_uri(uri)
blocks = h.get_size() // 4096
def times(request):
    taken = []
    for i in range(count):
        offset = (i * 7919 % blocks) * 4096
        begun = time.perf_counter()
        request(offset)
        taken.append((time.perf_counter() - begun) * 1000)
    return taken
print(json.dumps({
    "read": times(lambda offset: h.pread(4096, offset)),
    "status": times(lambda offset: h.block_status(4096, offset, lambda *_: 0)),
}))
h.shutdown()
`;

export async function latencyOf(uri: string, requests: number): Promise<Latency> {
  const { stdout } = await execa('/usr/bin/python3', ['-c', SCRIPT, uri, String(requests)], {
    timeout: DEADLINE_MS,
  });
  const { read, status } = JSON.parse(stdout) as Record<keyof Latency, number[]>;
  return { read: spread(read), status: spread(status) };
}

function spread(times: readonly number[]): Spread {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (part: number): number => sorted[Math.floor((sorted.length - 1) * part)] ?? Number.NaN;
  return { median: at(0.5), p95: at(0.95) };
}
