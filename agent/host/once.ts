/**
 * Calls in flight by id: the same call sent twice at the same time is one call with two answers.
 */
export class CallsInFlight<T> {
  readonly #calls = new Map<string, { request: string; answer: Promise<T> }>();

  /**
   * Joins the call of that id, or begins it.
   * @param request the call's params as canonical text
   * @param conflict the error for another call under the same id
   */
  async run(id: string, request: string, work: () => Promise<T>, conflict: () => Error): Promise<T> {
    const running = this.#calls.get(id);
    if (running !== undefined) {
      if (running.request !== request) throw conflict();
      return running.answer;
    }
    const answer = work().finally(() => this.#calls.delete(id));
    this.#calls.set(id, { request, answer });
    return answer;
  }
}
