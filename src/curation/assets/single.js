// One picture at a time: a key judges it and shows the next one, which is already decoded.

import { ApiError, Unreachable, events, get } from "./api.js";
import { note } from "./address.js";
import { ask, button, element } from "./elements.js";
import { describe, facts, landmarks, nameOf, original, words } from "./facts.js";
import { filterBar } from "./filters.js";
import { REASONS } from "./judge.js";
import { keysOf } from "./keys.js";
import { List } from "./list.js";
import { say } from "./notices.js";
import { Pictures } from "./pictures.js";
import { moment, t } from "./texts.js";

// Pictures that are decoded ahead, and the memory for them in bytes.
const AHEAD = { least: 8, most: 14, memory: 96e6 };
const BEHIND = 2;
const WARM = 60;

export class SingleView {
  actions = {
    ng: () => this.#judge("ng"),
    pending: () => this.#judge("pending"),
    ok: () => this.#judge("ok"),
    next: () => this.#move(1),
    previous: () => this.#move(-1),
    undo: () => this.#undo(),
    reason: () => this.#askReason(),
    landmarks: () => this.#toggleLandmarks(),
    original: () => this.#toggleOriginal(),
    fresh: () => this.#open(true),
  };
  #context;
  #state;
  #list = null;
  #pictures = new Pictures();
  #stop = new AbortController();
  #drawn = null; // the entry whose picture is on the screen
  #hasLandmarks = sessionStorage.getItem("landmarks") === "yes";
  #isOpening = false;
  #pixels = 0;

  constructor(context, state) {
    this.#context = context;
    this.#state = state;
    this.#build();
    this.#pictures.addEventListener("ready", ({ detail }) => detail === this.#list?.current?.crop && this.#draw());
    context.outbox.addEventListener("settled", ({ detail }) => {
      for (const result of detail) if (result.verdicts) this.#list?.note(result);
    }, { signal: this.#stop.signal });
    addEventListener("keys-changed", () => this.#nameKeys(), { signal: this.#stop.signal });
    this.#observer = new ResizeObserver(() => this.#resize());
    this.#observer.observe(this.frame);
    this.#open(false);
  }

  #observer;

  close() {
    this.#stop.abort();
    this.#observer.disconnect();
    this.#list?.close();
    this.#pictures.close();
  }

  get where() {
    return this.bar.where;
  }

  showCounts(counts) {
    this.bar.showCounts(counts);
    if (this.#list?.length === 0 && this.#list.isComplete && counts.chosen > 0) this.#open(true);
  }

  #build() {
    this.bar = filterBar("single", this.#state);
    this.canvas = element("canvas", { role: "img", tabIndex: 0 });
    this.overlay = element("div.overlay");
    this.message = element("div.message");
    this.frame = element("div.frame", {}, this.canvas, this.overlay, this.message);
    this.name = element("h1");
    this.status = element("span.status");
    this.place = element("span.place");
    this.order = element("p.hint", { title: t("selection-hint") });
    this.facts = facts();
    const act = (action, properties = {}) => {
      const made = button("", (event) => {
        this.actions[action]();
        // A click leaves no focus on the button: Space would press it again.
        if (event.detail > 0) made.blur();
      }, { "data-action": action, ...properties });
      return made;
    };
    const isViewer = !this.#context.canJudge;
    this.buttons = [
      act("previous", { className: "move" }), act("ng", { className: "ng", disabled: isViewer }),
      act("pending", { className: "pending", disabled: isViewer }), act("ok", { className: "ok", disabled: isViewer }),
      act("next", { className: "move" }),
    ];
    this.tools = [
      act("undo", { disabled: isViewer }), act("reason", { disabled: isViewer }), act("landmarks"), act("original"), act("fresh"),
    ];
    this.#nameKeys();
    this.element = element("main.single", {}, this.bar.bar,
      element("div.stage", {}, this.frame,
        element("aside", {}, element("div.heading", {}, this.name, this.status), this.place, this.order, this.facts.list,
          element("div.tools", { role: "group" }, this.tools))),
      element("div.judge", { role: "group", "aria-label": t("verdict") }, this.buttons));
  }

  #nameKeys() {
    const names = { fresh: "fresh", previous: "previous", next: "next", undo: "undo", reason: "reason", landmarks: "landmarks", original: "original" };
    for (const made of [...this.buttons, ...this.tools]) {
      const { action } = made.dataset;
      made.replaceChildren(element("span", {}, t(names[action] ?? action)), element("kbd", { "aria-hidden": "true" }, keysOf(action).split(" ")[0]));
      made.setAttribute("aria-keyshortcuts", keysOf(action));
      if (action === "fresh") made.title = t("fresh-hint");
    }
  }

  async #open(isNew) {
    if (this.#isOpening) return;
    this.#isOpening = true;
    this.#list?.close();
    try {
      this.#list = await List.open(this.#context, { where: this.#state.where, sort: this.#state.sort, view: "single" }, isNew);
      if (this.#stop.signal.aborted) return this.#list.close();
      if (this.#state.at !== null && this.#state.isBack && this.#state.at < this.#list.length) this.#list.move(this.#state.at);
      this.#list.addEventListener("changed", () => this.#show());
      const { opened, selection } = this.#list.record;
      this.order.textContent = `${t("list-of", { time: moment(opened) })} · ${t(`selection-${selection}`)}`;
      this.#show();
    } catch (error) {
      if (!this.#stop.signal.aborted) this.#fail(error);
    } finally {
      this.#isOpening = false;
    }
  }

  #fail(error) {
    const text = error instanceof ApiError && [400, 422].includes(error.status) ? "bad-filter" : "error";
    this.#drawn = null;
    this.element.dataset.drawn = "no";
    this.message.replaceChildren(element("p", { role: "alert" }, t(text, { message: error.message })),
      button(t("try-again"), () => this.#open(false)));
    if (error instanceof Unreachable) {
      events.addEventListener("reached", () => this.#open(false), { once: true, signal: this.#stop.signal });
    }
  }

  // The page shows what the list has at its place.
  #show() {
    const list = this.#list;
    const entry = list.current;
    this.#want();
    this.place.textContent = list.length === 0 ? "" : t("place", { place: Math.min(list.position + 1, list.total), total: list.total });
    this.element.dataset.place = list.position;
    if (!entry) {
      this.#clear();
      if (list.error) this.#fail(list.error);
      else if (list.isComplete && list.position >= list.length) this.#end();
      else this.message.replaceChildren(element("p", {}, t("loading")));
      return;
    }
    this.name.textContent = nameOf(entry);
    this.status.textContent = words(entry.judgement, entry.reason) === t("unjudged") ? t(entry.status) : words(entry.judgement, entry.reason);
    this.status.className = `status ${entry.status}`;
    this.facts.show(entry);
    this.#draw();
    note("single", { ...this.#state, at: list.position });
  }

  #clear() {
    this.#drawn = null;
    this.element.dataset.drawn = "no";
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.overlay.replaceChildren();
    this.name.textContent = "";
    this.status.textContent = "";
    this.status.className = "status";
  }

  #end() {
    const isEmpty = this.#list.length === 0;
    const what = isEmpty ? this.#list.emptiness : "end";
    this.message.replaceChildren(element("h2", {}, t(what)), element("p", {}, t(`${what}-hint`)), isEmpty ? "" : button(t("fresh"), () => this.#open(true)));
    this.element.dataset.drawn = "end";
  }

  #draw() {
    const entry = this.#list.current;
    if (!entry || this.canvas.width === 0) return;
    const bitmap = this.#pictures.get(entry);
    const context = this.canvas.getContext("2d", { alpha: false });
    if (this.#drawn !== entry) this.overlay.replaceChildren();
    if (!bitmap) {
      this.#drawn = null;
      this.element.dataset.drawn = "no";
      this.canvas.style.opacity = 0.25;
      this.message.replaceChildren(element("p", {}, t(this.#pictures.hasFailed(entry) ? "picture-failed" : "loading")));
      return;
    }
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, this.canvas.width, this.canvas.height);
    if (this.#drawn === null) {
      this.canvas.style.opacity = 1;
      this.message.replaceChildren();
    }
    this.#drawn = entry;
    this.element.dataset.drawn = "yes";
    this.element.dataset.photo = entry.photo_id;
    this.canvas.setAttribute("aria-label", describe(entry));
    if (this.#hasLandmarks) this.overlay.replaceChildren(landmarks(entry, entry.size));
  }

  #want() {
    if (this.#pixels === 0) return;
    const list = this.#list;
    const ahead = Math.max(AHEAD.least, Math.min(AHEAD.most, Math.floor(AHEAD.memory / (4 * this.#pixels ** 2))));
    const near = [...list.from(list.position, ahead + 1), ...list.from(Math.max(0, list.position - BEHIND), Math.min(BEHIND, list.position))];
    this.#pictures.want(near, list.from(list.position + ahead + 1, WARM), this.#pixels);
  }

  #resize() {
    const side = Math.floor(Math.min(this.frame.clientWidth, this.frame.clientHeight));
    const pixels = Math.round(side * devicePixelRatio);
    if (side <= 0 || pixels === this.#pixels) return;
    this.#pixels = pixels;
    [this.canvas.width, this.canvas.height] = [pixels, pixels];
    for (const part of [this.canvas, this.overlay]) {
      part.style.width = `${side}px`;
      part.style.height = `${side}px`;
    }
    this.#drawn = null;
    if (this.#list) this.#show();
  }

  // Judges the picture that is on the screen, and no other.
  #judge(judgement, reason = null) {
    const list = this.#list;
    const entry = list?.current;
    if (!entry || !this.#context.canJudge || this.#drawn !== entry) return;
    list.move(list.position + 1, true);
    this.#context.judge.judge([{ entry, judgement, reason }], "single", list.record);
    this.#show();
    this.#announce(t("judged", { judgement: words(judgement, reason), label: nameOf(entry) }));
  }

  #move(steps) {
    const list = this.#list;
    if (!list || list.position + steps < 0 || list.position + steps > list.length) return;
    list.move(list.position + steps);
    this.#show();
  }

  #undo() {
    const list = this.#list;
    if (!this.#context.canJudge) return;
    if (!this.#context.judge.canUndo) return say(t("nothing-to-undo"));
    let place = null;
    const entryOf = (change) => {
      if (list && change.list === list.record.key) place = Math.min(place ?? change.index, change.index);
      return list?.entryOf(change) ?? null;
    };
    const changes = this.#context.judge.undo(entryOf, null);
    if (place !== null) list.move(place);
    if (changes.length > 1) say(t("undone-page", { n: changes.length }));
    else say(t("undone", { label: nameOf(changes[0]), judgement: words(changes[0].before.judgement, changes[0].before.reason) }));
    if (list) this.#show();
  }

  async #askReason() {
    const entry = this.#drawn;
    if (!entry || !this.#context.canJudge) return;
    const list = element("p.hint", {}, nameOf(entry));
    const chosen = ask(t("reason-title"), list, [...REASONS.map((name, index) => [name, `${index + 1} ${t(name)}`]), ["", t("cancel")]]);
    const dialog = list.closest("dialog");
    dialog.classList.add("reasons");
    dialog.addEventListener("keydown", (event) => {
      const reason = REASONS[Number(event.key) - 1];
      if (!reason || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      dialog.close(reason);
    });
    const reason = await chosen;
    if (REASONS.includes(reason) && this.#drawn === entry) this.#judge("ng", reason);
  }

  #toggleLandmarks() {
    this.#hasLandmarks = !this.#hasLandmarks;
    sessionStorage.setItem("landmarks", this.#hasLandmarks ? "yes" : "no");
    this.overlay.replaceChildren();
    this.#draw();
  }

  async #toggleOriginal() {
    const entry = this.#drawn;
    if (!entry) return;
    if (this.overlay.querySelector(".original")) return this.#closeOriginal();
    try {
      const face = await get(`/api/faces/${encodeURIComponent(entry.photo_id)}`);
      if (this.#drawn === entry) this.overlay.replaceChildren(original(face, t("square")));
    } catch (error) {
      say(t("error", { message: error.message }));
    }
  }

  #closeOriginal() {
    this.overlay.replaceChildren();
    this.#draw();
  }

  // For screen readers: what was done, and what is shown now.
  #announce(text) {
    const entry = this.#list.current;
    this.#context.announce(entry ? `${text}. ${describe(entry)}` : text);
  }
}
