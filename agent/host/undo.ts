/**
 * The steps that a verb has taken so far, each with what takes it back. When the verb fails they are taken
 * back in reverse order, so that it leaves nothing behind; when it succeeds they are forgotten.
 */
export class UndoStack {
  readonly #steps: { what: string; undo: () => Promise<void> | void }[] = [];

  /** Push before the deed where the undo tolerates a deed that never happened; that is the safe order. */
  push(what: string, undo: () => Promise<void> | void): void {
    this.#steps.push({ what, undo });
  }

  /** Forget the steps: the verb has succeeded and they stay. */
  release(): void {
    this.#steps.length = 0;
  }

  /** Takes all steps back, last first. One that fails is reported and does not keep the others from running. */
  async unwind(onFailure: (what: string, cause: unknown) => void): Promise<void> {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        await step.undo();
      } catch (cause) {
        onFailure(step.what, cause);
      }
    }
  }
}
