// Judging: what a key does to an entry, the outbox and the undo stack, in one transaction and without waiting.

import { randomHex } from "./api.js";

export const JUDGEMENTS = ["ng", "pending", "ok"];
export const REASONS = ["blurred", "cut-off", "covered", "not-a-face", "wrong-person", "bad-crop", "mirrored-ghost", "other"];

export class Judge {
  #store;
  #journal;
  #outbox;
  #undo;
  #session;

  constructor(store, journal, outbox, undo, session) {
    this.#store = store;
    this.#journal = journal;
    this.#outbox = outbox;
    this.#undo = undo;
    this.#session = session;
  }

  get canUndo() {
    return !this.#undo.isEmpty;
  }

  // Judges entries of one list; undo takes all of them back at once. `targets`: [{entry, judgement, reason}].
  judge(targets, view, record) {
    const changes = targets.map(({ entry }) => ({
      list: entry.list,
      index: entry.index,
      photo_id: entry.photo_id,
      crop: entry.crop,
      label: entry.label,
      p_ok: entry.p_ok,
      ticket: entry.ticket,
      before: { judgement: entry.judgement, reason: entry.reason },
      view,
    }));
    const items = targets.map(({ entry, judgement, reason }) => apply(entry, judgement, reason, view, this.#session.threshold));
    changes.forEach((change, index) => { change.id = items[index].id; });
    return this.#write(items, targets.map(({ entry }) => entry), record, { added: this.#undo.push(changes) });
  }

  // Takes the newest step back. `entryOf(change)` gives the entry if it is at hand. Answers the changes of the step.
  undo(entryOf, record) {
    const step = this.#undo.newest;
    if (!step) return null;
    const entries = [];
    const items = step.changes.map((change) => {
      const judgement = change.before.judgement ?? "unjudged";
      const entry = entryOf(change);
      if (entry) {
        entries.push(entry);
        return apply(entry, judgement, change.before.reason, change.view, this.#session.threshold);
      }
      const item = verdict(change, judgement, change.before.reason, change.view, [change.id]);
      this.#store.change("entries", [change.list, change.index], (stored) => {
        if (stored?.crop === change.crop) overlay(stored, item, this.#session.threshold);
        return stored;
      });
      return item;
    });
    this.#write(items, entries, record, { removed: this.#undo.pop() });
    return step.changes;
  }

  #write(items, entries, record, step) {
    const listed = entries.filter(({ list }) => list);
    const done = this.#journal.write({ id: items[0].id, items, entries: listed, record, ...step });
    this.#outbox.added(items.length);
    done.catch((error) => dispatchEvent(new CustomEvent("storage-failed", { detail: error })));
    return done;
  }
}

const verdict = ({ ticket, photo_id, crop, label }, judgement, reason, view, replaces) => ({
  id: randomHex(16), ticket, photo_id, crop, label, judgement, reason: judgement === "ng" ? reason : null, view, replaces,
});

// Changes the entry and gives the verdict.
function apply(entry, judgement, reason, view, threshold) {
  const item = verdict(entry, judgement, reason, view, entry.counting);
  overlay(entry, item, threshold);
  return item;
}

// The entry as it is with a verdict that the server may not know yet.
export function overlay(entry, { id, judgement, reason }, threshold) {
  entry.counting = [id];
  entry.judgement = judgement === "unjudged" ? null : judgement;
  entry.reason = reason ?? null;
  entry.status = entry.judgement ?? unjudged(entry.p_ok, threshold);
  entry.mine = true;
}

export const unjudged = (pOk, threshold) => (pOk !== null && pOk >= threshold ? "predicted" : "ready");
