/** How fast nbdcopy reads or writes. */
import { execa } from 'execa';

const DEADLINE_MS = 120_000;

/** MiB/s over the whole of an export: what is read goes nowhere, what is written comes from a file in memory. */
export async function copyRate({
  way,
  uri,
  connections,
  image,
  mebibytes,
}: {
  way: 'read' | 'write';
  uri: string;
  connections: number;
  /** A file of `mebibytes` that holds data everywhere. */
  image: string;
  mebibytes: number;
}): Promise<number> {
  const from = way === 'read' ? [uri, 'null:'] : [image, uri];
  const begun = performance.now();
  await execa('nbdcopy', [`--connections=${connections}`, `--threads=${connections}`, ...from], {
    timeout: DEADLINE_MS,
  });
  return mebibytes / ((performance.now() - begun) / 1000);
}
