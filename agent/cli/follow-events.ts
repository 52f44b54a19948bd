/** `wait-events --follow`: the journal from a number on, event by event. */
import type { WaitEventsResult } from '../api/generated.js';
import { compact } from './show.js';

/**
 * Waits again and again, and prints what comes; ends only by a failure, or with the program.
 * @param isJson an event a line; a gap is `{"gap": {"from", "to"}}`, a new journal `{"journal": …}`
 */
export async function followEvents(
  params: Readonly<Record<string, unknown>>,
  ask: (params: object) => Promise<unknown>,
  isJson: boolean,
): Promise<never> {
  let after: unknown = params.after;
  let journal: string | undefined;
  const print = (line: object, text: string): void => {
    process.stdout.write(`${isJson ? JSON.stringify(line) : text}\n`);
  };
  for (;;) {
    const answer = (await ask({ ...params, ...(after !== undefined && { after }) })) as WaitEventsResult;
    if (journal !== undefined && journal !== answer.journal) {
      print({ journal: answer.journal }, 'the numbering has begun again: another journal');
    }
    journal = answer.journal;
    const { gap } = answer;
    if (gap !== null) print({ gap }, `${gap.from} to ${gap.to} cannot be told`);
    for (const event of answer.events) {
      const { seq, time, kind, ...about } = event;
      print(
        event,
        `${seq} ${time} ${kind} ${Object.entries(about)
          .map(([name, value]) => `${name}=${compact(value)}`)
          .join(' ')}`,
      );
    }
    after = answer.next;
  }
}
