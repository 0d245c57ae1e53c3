// A list of faces as it was when it was opened. The part around the person's place is in memory, all of it in the store: a
// list goes on after the tab was closed or the server was restarted.

import { ApiError, patiently, post } from "./api.js";
import { overlay } from "./judge.js";
import { beginning } from "./store.js";

const CHUNK = 60;
// Entries that are in memory before the place, and at least so many after it.
const BEHIND = 150;
const AHEAD = 90;
const LISTS = 24;

export class List extends EventTarget {
  #context;
  #stop = new AbortController();
  #entries = new Map();
  #kept = new Map();
  #fetching = null;
  #isMoved = false;
  #isSaving = false;
  error = null;

  // Goes on with the list of this desk, or opens it. `isNew`: opens it in any case.
  static async open(context, { where, sort, view }, isNew = false) {
    const { store, desk } = context;
    const key = `${desk.number} ${view} ${sort} ${where}`;
    const list = new List();
    list.#context = context;
    const record = isNew ? null : await store.get("lists", key);
    if (record && (record.next !== null || record.position < record.length)) {
      list.record = record;
      await list.#resume();
    } else {
      await list.#begin({ key, where, sort, view });
    }
    return list;
  }

  get length() { return this.record.length; }
  get position() { return this.record.position; }
  get isComplete() { return this.record.next === null; }
  get total() { return Math.max(this.record.total, this.length); }
  // What to say of a list without entries: no face is in it, or others have all that are left.
  get emptiness() { return this.record.total > 0 ? "held" : "empty"; }
  get current() { return this.#entries.get(this.position) ?? null; }

  at(index) {
    return this.#entries.get(index) ?? null;
  }

  // Entries from an index on, as far as they are in memory.
  from(index, count) {
    const found = [];
    for (let at = index; at < index + count && this.#entries.has(at); at++) found.push(this.#entries.get(at));
    return found;
  }

  // The entry that a change of the undo stack is about.
  entryOf = ({ list, index, crop }) => {
    const entry = list === this.record.key ? this.at(index) : null;
    return entry?.crop === crop ? entry : null;
  };

  // Moves the person's place. The last place is behind the last entry.
  move(position, isSaved = false) {
    this.record.position = Math.max(0, Math.min(this.length, position));
    this.#trim();
    this.#advance();
    if (this.position - 1 > 0 && !this.#entries.has(this.position - 1)) this.#load();
    if (!isSaved) this.#save();
  }

  // Notes verdicts that count for a crop by now, so that the next verdict replaces them.
  note({ photo_id, crop, verdicts }) {
    for (const entry of this.#entries.values()) {
      if (entry.photo_id !== photo_id || entry.crop !== crop) continue;
      entry.verdicts = verdicts;
      entry.counting = verdicts.map((verdict) => verdict.id);
      this.#put([entry]);
    }
  }

  close() {
    this.#stop.abort();
  }

  async #begin({ key, where, sort, view }) {
    const { store, desk, outbox } = this.#context;
    // The list should know what was just judged.
    await outbox.drained(2000);
    const opened = await this.#post("/api/lists", { where, sort, view, client: desk.client });
    const { list, total, selection } = opened;
    this.record = {
      key, desk: desk.number, where, sort, view, list, total, selection,
      next: undefined, length: 0, position: 0, opened: Date.now(),
    };
    await this.#forget();
    await store.write(["lists", "entries"], ({ lists, entries }) => {
      entries.delete(beginning(key));
      lists.put(this.record);
    });
    await this.#fetch();
  }

  // Old lists of this desk make room.
  async #forget() {
    const { store, desk } = this.#context;
    const all = (await store.all("lists")).filter((record) => record.desk === desk.number && record.key !== this.record.key);
    const old = all.sort((a, b) => b.opened - a.opened).slice(LISTS);
    if (old.length === 0) return;
    await store.write(["lists", "entries"], ({ lists, entries }) => old.forEach(({ key }) => {
      lists.delete(key);
      entries.delete(beginning(key));
    }));
  }

  async #resume() {
    const { record } = this;
    await this.#read(record.position - BEHIND, record.length);
    const entry = this.current;
    if (!entry) {
      this.#advance();
      return;
    }
    // Others may have got the pictures ahead while this tab was closed: they are asked for again. What was judged stays.
    for (const old of this.from(record.position, record.length)) {
      if (old.mine) this.#kept.set(`${old.photo_id} ${old.crop}`, old);
    }
    const done = new Set();
    for (let index = record.position - 1; this.#entries.get(index)?.after === entry.after; index--) {
      done.add(`${this.#entries.get(index).photo_id} ${this.#entries.get(index).crop}`);
    }
    const before = { ...record };
    [record.next, record.length] = [entry.after, record.position];
    try {
      await this.#fetch(done);
      // The list may be shorter by now.
      for (const index of [...this.#entries.keys()]) if (index >= record.length) this.#entries.delete(index);
    } catch (error) {
      // Without a server the person goes on with what is here.
      if (error instanceof ApiError && error.status < 500) throw error;
      Object.assign(record, before);
      this.#advance();
    }
  }

  // Without patience: the first page of a list should say that the server cannot be reached.
  #post(path, body) {
    return post(path, body, this.#stop.signal);
  }

  async #fetch(done = new Set()) {
    const { record } = this;
    const { store, desk, outbox } = this.#context;
    const after = record.next;
    const body = { client: desk.client, limit: CHUNK, ...(after ? { after } : {}) };
    let answer;
    try {
      answer = await this.#post(`/api/lists/${record.list}/entries`, body);
    } catch (error) {
      if (!(error instanceof ApiError && [404, 410].includes(error.status))) throw error;
      // The server was restarted: the list goes on where it was.
      const { where, sort, view } = record;
      const again = { where, sort, view, client: desk.client, ...(after ? { after } : {}) };
      record.list = (await this.#post("/api/lists", again)).list;
      answer = await this.#post(`/api/lists/${record.list}/entries`, body);
    }
    const pending = await outbox.pending();
    const entries = [];
    for (const face of answer.entries) {
      const name = `${face.photo_id} ${face.crop}`;
      if (done.has(name)) continue;
      const index = record.length + entries.length;
      const kept = this.#kept.get(name);
      this.#kept.delete(name);
      const entry = kept ?? { ...face, counting: face.verdicts.map((verdict) => verdict.id) };
      Object.assign(entry, { list: record.key, index, after: after ?? null });
      const unsent = pending.get(name);
      if (!kept && unsent) overlay(entry, unsent, this.#context.session.threshold);
      entries.push(entry);
    }
    if (this.#stop.signal.aborted) return;
    const old = IDBKeyRange.bound([record.key, record.length], [record.key, []]);
    record.length += entries.length;
    record.next = answer.next;
    for (const entry of entries) this.#entries.set(entry.index, entry);
    store.write(["lists", "entries"], ({ lists, entries: stored }) => {
      stored.delete(old);
      for (const entry of entries) stored.put(entry);
      lists.put(record);
    });
    this.error = null;
    this.#changed();
    this.#advance();
  }

  // Fetches what comes next in time.
  #advance() {
    if (this.#fetching || this.isComplete || this.length - this.position > AHEAD) return;
    this.#fetching = patiently(() => this.#fetch(), this.#stop.signal)
      .catch((error) => {
        if (this.#stop.signal.aborted) return;
        this.error = error;
        this.#changed();
      })
      .finally(() => {
        this.#fetching = null;
        if (!this.error && !this.#stop.signal.aborted) this.#advance();
      });
  }

  // Reads entries from the store that are not in memory.
  async #read(first, end) {
    const { key } = this.record;
    const range = IDBKeyRange.bound([key, Math.max(0, first)], [key, end], false, true);
    for (const entry of await this.#context.store.all("entries", range)) {
      if (!this.#entries.has(entry.index)) this.#entries.set(entry.index, entry);
    }
  }

  async #load() {
    await this.#read(this.position - BEHIND, this.position + AHEAD);
    if (!this.#stop.signal.aborted) this.#changed();
  }

  #trim() {
    for (const index of this.#entries.keys()) {
      if (index >= this.position - 2 * BEHIND && index < this.position + 4 * AHEAD) break;
      this.#entries.delete(index);
    }
    // After moves backwards the far entries are not the first ones.
    if (this.#entries.size > 3 * BEHIND + 4 * AHEAD) {
      for (const index of [...this.#entries.keys()]) {
        if (Math.abs(index - this.position) > BEHIND + AHEAD) this.#entries.delete(index);
      }
    }
  }

  #put(entries) {
    this.#context.store.write(["entries"], ({ entries: stored }) => entries.forEach((entry) => stored.put(entry)));
  }

  // A move alone is written when the person pauses.
  // Stores the place. One write at a time: a held key moves faster than the database writes.
  async #save() {
    this.#isMoved = true;
    if (this.#isSaving) return;
    this.#isSaving = true;
    while (this.#isMoved && !this.#stop.signal.aborted) {
      this.#isMoved = false;
      await this.#context.store.write(["lists"], ({ lists }) => lists.put(this.record))
        .catch((error) => dispatchEvent(new CustomEvent("storage-failed", { detail: error })));
    }
    this.#isSaving = false;
  }

  #changed() {
    this.dispatchEvent(new Event("changed"));
  }
}
