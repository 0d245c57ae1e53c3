// What was judged a moment ago, until the database has it. A tab that is closed takes the transactions along that have not
// ended; localStorage keeps what is written to it.

export class Journal {
  #store;
  #desk;
  #place;
  #changes = [];

  // Adds what an earlier tab at this desk left.
  static async open(store, desk) {
    const journal = new Journal();
    journal.#store = store;
    journal.#desk = desk;
    journal.#place = `journal ${store.name}/${desk.number}`;
    const left = JSON.parse(localStorage.getItem(journal.#place) ?? "[]");
    const written = (await store.get("desks", desk.number))?.written;
    // Transactions end in order: all up to the one that was written last are in the database.
    for (const change of left.slice(left.findIndex(({ id }) => id === written) + 1)) await journal.#save(change);
    journal.#keep();
    return journal;
  }

  // Stores verdicts for the outbox with the entries that they change, the place in the list, and the step of the undo stack
  // that they add or remove. The promise is fulfilled when the database has them.
  async write(change) {
    this.#changes.push(change);
    this.#keep();
    await this.#save(change);
    this.#changes = this.#changes.filter(({ id }) => id !== change.id);
    this.#keep();
  }

  #keep() {
    try {
      if (this.#changes.length === 0) localStorage.removeItem(this.#place);
      else localStorage.setItem(this.#place, JSON.stringify(this.#changes));
    } catch {
      // It is full: the database alone keeps what was judged.
    }
  }

  #save({ id, items, entries, record, added, removed }) {
    const { number, client } = this.#desk;
    return this.#store.write(["outbox", "entries", "lists", "undo", "desks"], (stores) => {
      for (const item of items) stores.outbox.add(item);
      for (const entry of entries) stores.entries.put(entry);
      if (record) stores.lists.put(record);
      if (added) stores.undo.put(added);
      if (removed) stores.undo.delete(removed);
      stores.desks.put({ desk: number, client, written: id });
    });
  }
}
