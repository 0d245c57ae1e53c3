// A page of crops: the exceptions are marked, and one key judges the page.

import { ApiError, Unreachable, events } from "./api.js";
import { note } from "./address.js";
import { button, element, field, link, select } from "./elements.js";
import { describe, nameOf, related, words } from "./facts.js";
import { filterBar } from "./filters.js";
import { JUDGEMENTS } from "./judge.js";
import { keysOf } from "./keys.js";
import { List } from "./list.js";
import { say } from "./notices.js";
import { address } from "./pictures.js";
import { probability, t } from "./texts.js";

const PAGES = [30, 36, 48, 60];
const PLACE = "facemill-grid";
const PIXELS = 256;

export class GridView {
  actions = {
    ng: () => this.#choose("ng"),
    pending: () => this.#choose("pending"),
    ok: () => this.#choose("ok"),
    next: (event) => (event.key === " " ? this.#mark(this.#at) : this.#focus(1)),
    previous: () => this.#focus(-1),
    up: () => this.#focus(-this.#columns()),
    down: () => this.#focus(this.#columns()),
    mark: () => this.#mark(this.#at),
    page: () => this.#judgePage(),
    rest: () => this.#turn(),
    undo: () => this.#undo(),
    fresh: () => this.#open(true),
  };
  #context;
  #state;
  #settings = settings();
  #list = null;
  #stop = new AbortController();
  #pages = []; // the page that is shown, and the next one, whose pictures load
  #chosen = new Map(); // by index in the list: true for a mark, or a judgement
  #at = 0;
  #isOpening = false;

  constructor(context, state) {
    this.#context = context;
    this.#state = state;
    this.#build();
    context.outbox.addEventListener("settled", ({ detail }) => {
      for (const result of detail) if (result.verdicts) this.#list?.note(result);
    }, { signal: this.#stop.signal });
    addEventListener("keys-changed", () => this.#show(), { signal: this.#stop.signal });
    this.#open(false);
  }

  close() {
    this.#stop.abort();
    this.#list?.close();
  }

  get where() {
    return this.bar.where;
  }

  showCounts(counts) {
    this.bar.showCounts(counts);
    if (this.#list?.length === 0 && this.#list.isComplete && counts.chosen > 0) this.#open(true);
  }

  get #size() {
    return this.#settings.size;
  }

  #build() {
    this.bar = filterBar("grid", this.#state);
    this.hint = element("p.hint");
    this.place = element("span.place");
    this.rest = button("", () => this.#turn(), { className: "rest", "data-action": "rest" });
    this.judge = button("", (event) => { this.#judgePage(); event.target.blur(); }, { className: "main", "data-action": "page" });
    this.undo = button("", () => this.#undo(), { "data-action": "undo", disabled: !this.#context.canJudge });
    this.fresh = button("", () => this.#open(true), { title: t("fresh-hint"), "data-action": "fresh" });
    this.message = element("div.message");
    this.cells = element("div.cells");
    const size = select(PAGES.map((n) => [String(n), String(n)]), String(this.#size), (value) => {
      this.#set({ size: Number(value) });
      this.#pages = [];
      this.#show();
    });
    this.element = element("main.grid", {}, this.bar.bar,
      element("div.page-bar", {}, this.rest, this.judge, this.undo, this.fresh, field(t("per-page"), size), this.place),
      this.hint, this.message, this.cells);
  }

  async #open(isNew) {
    if (this.#isOpening) return;
    this.#isOpening = true;
    this.#list?.close();
    try {
      this.#list = await List.open(this.#context, { where: this.#state.where, sort: this.#state.sort, view: "grid" }, isNew);
      if (this.#stop.signal.aborted) return this.#list.close();
      if (this.#state.at !== null && this.#state.isBack && this.#state.at < this.#list.length) this.#list.move(this.#state.at);
      this.#list.addEventListener("changed", () => this.#show());
      this.#chosen.clear();
      this.#at = 0;
      this.#pages = [];
      this.#show();
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      const text = error instanceof ApiError && [400, 422].includes(error.status) ? "bad-filter" : "error";
      this.cells.replaceChildren();
      this.message.replaceChildren(element("p", { role: "alert" }, t(text, { message: error.message })),
        button(t("try-again"), () => this.#open(false)));
      if (error instanceof Unreachable) {
        events.addEventListener("reached", () => this.#open(false), { once: true, signal: this.#stop.signal });
      }
    } finally {
      this.#isOpening = false;
    }
  }

  get #entries() {
    return this.#list.from(this.#list.position, this.#size);
  }

  #show() {
    const list = this.#list;
    if (!list) return;
    const { position } = list;
    this.element.dataset.place = position;
    const pages = [position, position + this.#size].map((first) => {
      const entries = list.from(first, this.#size);
      const known = this.#pages.find((page) => page.first === first && page.entries.length === entries.length);
      return known ?? new Page(first, entries, (index) => this.#click(index));
    });
    this.#pages = pages;
    this.cells.replaceChildren(...pages.filter(({ entries }) => entries.length > 0).map(({ element: place }) => place));
    pages[0].element.hidden = false;
    pages[1].element.hidden = true;
    const isEmpty = pages[0].entries.length === 0;
    if (!isEmpty) this.message.replaceChildren();
    else if (list.error) this.message.replaceChildren(element("p", { role: "alert" }, t("error", { message: list.error.message })));
    else if (!list.isComplete || position < list.length) this.message.replaceChildren(element("p", {}, t("loading")));
    else {
      const what = list.length === 0 ? list.emptiness : "end";
      this.message.replaceChildren(element("h2", {}, t(what)), element("p", {}, t(`${what}-hint`)));
    }
    this.element.dataset.drawn = isEmpty ? (list.isComplete ? "end" : "no") : "yes";
    this.place.textContent = list.length === 0 ? "" : t("place", { place: Math.min(position + 1, list.total), total: list.total });
    this.hint.textContent = t("grid-hint", { mark: keysOf("mark"), page: keysOf("page") });
    this.#label();
    note("grid", { ...this.#state, at: position });
  }

  // What the page's buttons would do, and how the cells are marked.
  #label() {
    const { rest } = this.#settings;
    const other = rest === "ng" ? "ok" : "ng";
    const entries = this.#entries;
    const marked = entries.filter(({ index }) => this.#chosen.has(index)).length;
    this.rest.replaceChildren(element("span", {}, t(`rest-${rest}`)), element("kbd", { "aria-hidden": "true" }, keysOf("rest")));
    this.rest.className = `rest ${rest}`;
    const text = marked > 0 ? "judge-page" : "judge-page-none";
    this.judge.replaceChildren(
      element("span", {}, t(text, { rest: entries.length - marked, judgement: t(rest), marked, other: t(other) })),
      element("kbd", { "aria-hidden": "true" }, keysOf("page")));
    this.judge.disabled = !this.#context.canJudge || entries.length === 0;
    this.undo.replaceChildren(element("span", {}, t("undo")), element("kbd", { "aria-hidden": "true" }, keysOf("undo")));
    this.fresh.replaceChildren(element("span", {}, t("fresh")), element("kbd", { "aria-hidden": "true" }, keysOf("fresh")));
    this.#at = Math.max(0, Math.min(this.#at, entries.length - 1));
    entries.forEach((entry, at) => this.#pages[0].mark(at, entry, this.#judgementOf(entry), this.#chosen.has(entry.index), at === this.#at));
  }

  #judgementOf({ index }) {
    const { rest } = this.#settings;
    const chosen = this.#chosen.get(index);
    return chosen === true ? (rest === "ng" ? "ok" : "ng") : chosen ?? rest;
  }

  #columns() {
    return getComputedStyle(this.#pages[0].element).gridTemplateColumns.split(" ").length;
  }

  #focus(steps) {
    const to = this.#at + steps;
    if (!this.#list || to < 0 || to >= this.#entries.length) return;
    this.#at = to;
    this.#label();
    this.#pages[0].focus(to);
  }

  #click(index) {
    this.#at = index - this.#list.position;
    this.#mark(this.#at);
  }

  #mark(at) {
    const entry = this.#entries[at];
    if (!entry) return;
    if (this.#chosen.has(entry.index)) this.#chosen.delete(entry.index);
    else this.#chosen.set(entry.index, true);
    this.#label();
  }

  // Gives one crop its own verdict, and goes to the next.
  #choose(judgement) {
    const entry = this.#list && this.#entries[this.#at];
    if (!entry) return;
    if (this.#chosen.get(entry.index) === judgement) this.#chosen.delete(entry.index);
    else this.#chosen.set(entry.index, judgement);
    this.#label();
    this.#focus(1);
  }

  #turn() {
    this.#set({ rest: this.#settings.rest === "ng" ? "ok" : "ng" });
    this.#label();
  }

  #set(change) {
    Object.assign(this.#settings, change);
    localStorage.setItem(PLACE, JSON.stringify(this.#settings));
  }

  // Judges the crops whose pictures are on the screen.
  #judgePage() {
    const list = this.#list;
    if (!list || !this.#context.canJudge) return;
    const entries = this.#entries;
    if (entries.length === 0) return;
    if (!this.#pages[0].isLoaded()) return say(t("loading"));
    const targets = entries.filter((_, at) => this.#pages[0].isShown(at))
      .map((entry) => ({ entry, judgement: this.#judgementOf(entry), reason: null }));
    list.move(list.position + entries.length, true);
    this.#context.judge.judge(targets, "grid", list.record);
    this.#chosen.clear();
    this.#at = 0;
    this.#show();
    say(t("page-judged", { n: targets.length }));
    scrollTo(0, 0);
  }

  #undo() {
    if (!this.#context.canJudge) return;
    if (!this.#context.judge.canUndo) return say(t("nothing-to-undo"));
    const list = this.#list;
    let place = null;
    const entryOf = (change) => {
      if (list && change.list === list.record.key) place = Math.min(place ?? change.index, change.index);
      return list?.entryOf(change) ?? null;
    };
    const changes = this.#context.judge.undo(entryOf, null);
    this.#chosen.clear();
    if (place !== null) list.move(place);
    this.#pages = [];
    this.#show();
    if (changes.length > 1) say(t("undone-page", { n: changes.length }));
    else say(t("undone", { label: nameOf(changes[0]), judgement: words(changes[0].before.judgement, changes[0].before.reason) }));
  }
}

function settings() {
  try {
    const { size, rest } = JSON.parse(localStorage.getItem(PLACE)) ?? {};
    return { size: PAGES.includes(size) ? size : 48, rest: JUDGEMENTS.includes(rest) ? rest : "ok" };
  } catch {
    return { size: 48, rest: "ok" };
  }
}

// The cells of a page.
class Page {
  constructor(first, entries, onclick) {
    this.first = first;
    this.entries = entries;
    this.cells = entries.map((entry) => {
      const picture = element("img", { alt: "", decoding: "async", width: PIXELS, height: PIXELS, src: address(entry, PIXELS) });
      const state = element("span.state");
      const others = [entry.copies > 1 ? `×${entry.copies}` : "", entry.near_duplicates > 0 ? `≈${entry.near_duplicates}` : ""];
      const text = others.filter(Boolean).join(" ");
      const badge = text ? element("span.badge", { title: related(entry) }, text) : null;
      const cell = element("button.cell", { type: "button", tabIndex: -1, onclick: () => onclick(entry.index) }, picture, state, badge,
        element("span.caption", {}, element("span", {}, nameOf(entry)), element("span", {}, probability(entry.p_ok))));
      return { cell, picture, state };
    });
    this.element = element("div.page", { role: "group" }, this.cells.map(({ cell }) => cell));
  }

  mark(at, entry, judgement, isMarked, isHere) {
    const { cell, state } = this.cells[at];
    cell.className = `cell ${judgement}${isMarked ? " marked" : ""}${isHere ? " here" : ""}`;
    cell.tabIndex = isHere ? 0 : -1;
    cell.setAttribute("aria-pressed", String(isMarked));
    cell.setAttribute("aria-label", `${describe(entry)}: ${t(judgement)}`);
    state.textContent = t(judgement);
  }

  focus(at) {
    const { cell } = this.cells[at];
    cell.focus({ preventScroll: true });
    cell.scrollIntoView({ block: "nearest" });
  }

  isLoaded() {
    return this.cells.every(({ picture }) => picture.complete);
  }

  isShown(at) {
    return this.cells[at].picture.naturalWidth > 0;
  }
}

export const crop = (face, pixels = PIXELS) =>
  link(`/faces/${encodeURIComponent(face.photo_id)}`,
    element("img", { src: address(face, pixels), alt: describe(face), width: pixels, height: pixels, loading: "lazy", decoding: "async" }));
