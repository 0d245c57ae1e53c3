// Verdicts on their way to the server: in order, one request at a time from all tabs together, again until they are stored.
// The server knows a verdict by its id, so that one that is sent twice is stored once.

import { ApiError, Unreachable, backOff, events, get, isTemporary, post, wait } from "./api.js";
import { alone } from "./locks.js";

const BATCH = 100;
const FIELDS = ["id", "ticket", "judgement", "reason", "view", "replaces"];

export class Outbox extends EventTarget {
  #store;
  #client;
  #session;
  #channel;
  #wake = new AbortController(); // ends the wait for new verdicts
  #again = null; // ends the wait for a server that could not be reached
  unsent = 0;

  constructor(store, client, session) {
    super();
    this.#store = store;
    this.#client = client;
    this.#session = session;
    this.#channel = new BroadcastChannel(store.name);
    this.#channel.onmessage = ({ data }) => this.#receive(data);
    events.addEventListener("reached", () => this.#again?.abort());
    addEventListener("online", () => this.#again?.abort());
    this.#count();
    alone(`${store.name}/outbox`, () => this.#send());
  }

  // New verdicts are in the store, or will be when a transaction completes that has begun.
  added(count) {
    this.unsent += count;
    this.#changed();
    this.#wake.abort();
    this.#channel.postMessage({ kind: "added" });
  }

  // Verdicts that the server may not know, by photo and crop.
  async pending() {
    if (this.unsent === 0) return new Map();
    const items = await this.#store.all("outbox");
    return new Map(items.map((item) => [`${item.photo_id} ${item.crop}`, item]));
  }

  // Waits until everything is sent, but not for long.
  async drained(milliseconds) {
    const until = performance.now() + milliseconds;
    while (this.unsent > 0 && performance.now() < until) {
      const left = new AbortController();
      const stop = () => left.abort();
      this.addEventListener("changed", stop, { once: true });
      await wait(until - performance.now(), left.signal);
      this.removeEventListener("changed", stop);
    }
  }

  async #send() {
    let [failures, single] = [0, false];
    for (;;) {
      this.#wake = new AbortController();
      const items = await this.#store.all("outbox", null, single ? 1 : BATCH);
      if (items.length === 0) {
        await wait(60_000, this.#wake.signal);
        continue;
      }
      try {
        const verdicts = items.map((item) => Object.fromEntries(
          FIELDS.filter((name) => item[name] !== undefined && item[name] !== null).map((name) => [name, item[name]])));
        const answer = await post("/api/verdicts", { client: this.#client, verdicts });
        if (answer.results.some(({ result }) => result === "refused")) await this.#checkSession();
        await this.#settle(items, answer.results);
        [failures, single] = [0, false];
      } catch (error) {
        failures++;
        const isRefused = error instanceof ApiError && !isTemporary(error) && ![401, 403].includes(error.status);
        if (isRefused && items.length === 1) {
          await this.#settle(items, [{ id: items[0].id, result: "refused", message: error.message }]);
          single = false;
          continue;
        }
        // One of them may be wrong: it must not stop the others.
        single = isRefused;
        if (isRefused) continue;
        this.#again = error instanceof Unreachable ? new AbortController() : null;
        await wait(backOff(failures, error), this.#again?.signal);
        this.#again = null;
      }
    }
  }

  // Somebody else may have signed in in another tab, or another run may be served at this address: verdicts wait for their
  // own person and run, and this page gives way.
  async #checkSession() {
    const { person, store } = await get("/api/session");
    if (person.name === this.#session.person.name && store === this.#session.store) return;
    location.reload();
    await new Promise(() => {});
  }

  async #settle(items, results) {
    const byId = new Map(results.map((result) => [result.id, result]));
    const notices = [];
    for (const item of items) {
      const { result, verdicts, message } = byId.get(item.id) ?? {};
      const differs = verdicts?.some((verdict) => verdict.judgement !== item.judgement);
      if (result === "refused" || differs) {
        const { id, photo_id, crop, label, ticket, judgement, reason } = item;
        const kind = differs ? "conflict" : result;
        notices.push({ id, kind, photo_id, crop, label, ticket, judgement, reason, verdicts, message, at: Date.now() });
      }
    }
    const done = items.filter((item) => byId.has(item.id));
    if (done.length === 0) throw new Error("the server answered nothing about the verdicts");
    await this.#store.write(["outbox", "notices"], ({ outbox, notices: shown }) => {
      for (const item of done) outbox.delete(item.order);
      for (const notice of notices) shown.put(notice);
    });
    const settled = done.map(({ id, photo_id, crop }) => ({ ...byId.get(id), photo_id, crop }));
    const data = { kind: "settled", settled };
    this.#channel.postMessage(data);
    await this.#receive(data);
  }

  async #receive(data) {
    if (data.kind === "added") this.#wake.abort();
    await this.#count();
    if (data.kind === "settled") this.dispatchEvent(new CustomEvent("settled", { detail: data.settled }));
  }

  async #count() {
    this.unsent = await this.#store.count("outbox");
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("changed"));
  }
}
