// The undo stack of a desk. The newest steps are in memory, so that a key does not wait; all are in the store.

import { beginning } from "./store.js";

const AT_HAND = 64;

export class UndoStack {
  #store;
  #desk;
  #steps = []; // the newest last
  #next = 1;
  #oldest = 1; // the number of the first step in memory
  #loading = null;

  static async open(store, desk) {
    const stack = new UndoStack();
    stack.#store = store;
    stack.#desk = desk;
    const steps = await store.last("undo", beginning(desk), AT_HAND);
    stack.#steps = steps.reverse();
    stack.#next = (steps.at(-1)?.number ?? 0) + 1;
    stack.#oldest = steps[0]?.number ?? 1;
    return stack;
  }

  get isEmpty() {
    return this.#steps.length === 0;
  }

  // Adds a step, and answers the record to store.
  push(changes) {
    const step = { desk: this.#desk, number: this.#next++, changes };
    if (this.#steps.length === 0) this.#oldest = step.number;
    this.#steps.push(step);
    if (this.#steps.length > 2 * AT_HAND) {
      this.#steps.splice(0, AT_HAND);
      this.#oldest = this.#steps[0].number;
    }
    return step;
  }

  // The newest step, or null.
  get newest() {
    return this.#steps.at(-1) ?? null;
  }

  // Removes the newest step, and answers its key in the store.
  pop() {
    const step = this.#steps.pop();
    if (this.#steps.length < AT_HAND / 2) this.#load();
    return [step.desk, step.number];
  }

  #load() {
    this.#loading ??= this.#store
      .last("undo", IDBKeyRange.bound([this.#desk], [this.#desk, this.#oldest], false, true), AT_HAND)
      .then((older) => {
        this.#loading = null;
        if (older.length === 0) return;
        this.#steps.unshift(...older.reverse());
        this.#oldest = this.#steps[0].number;
      });
  }
}
