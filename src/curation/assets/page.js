// The page: who is there, what is shown, and how many verdicts are on their way.

import { ApiError, Unreachable, call, events, get, patiently } from "./api.js";
import { path, read } from "./address.js";
import { BorderView } from "./border.js";
import { Desk } from "./desk.js";
import { button, element, link, select } from "./elements.js";
import { FaceView } from "./face.js";
import { GridView } from "./grid.js";
import { Journal } from "./journal.js";
import { Judge } from "./judge.js";
import { listen, showHelp } from "./keys.js";
import { Notices, places } from "./notices.js";
import { Outbox } from "./outbox.js";
import { signInForm } from "./sign_in.js";
import { SingleView } from "./single.js";
import { StatisticsView } from "./statistics.js";
import { Store } from "./store.js";
import { LANGUAGES, count, language, t, useLanguage } from "./texts.js";
import { TrainingDialog } from "./training.js";
import { UndoStack } from "./undo.js";

const VIEWS = { single: SingleView, grid: GridView, border: BorderView, statistics: StatisticsView, face: FaceView };
const TABS = ["single", "grid", "border", "statistics"];
// Milliseconds between two looks at the counts.
const RECOUNT = 4000;

class Page {
  #context;
  #view = null;
  #place = element("div#view");
  #counting = null;
  #timer = 0;

  constructor(context) {
    this.#context = context;
    context.announce = (text) => { this.live.textContent = text; };
    context.recount = () => this.#recount();
    this.live = element("p.unseen", { "aria-live": "polite" });
    this.left = element("span.left", { title: t("left-hint") });
    this.unsent = element("span.unsent", { role: "status", title: t("unsent-hint") });
    this.training = new TrainingDialog(context);
    this.tabs = element("nav", { "aria-label": t("views") });
    const languages = select(Object.entries(LANGUAGES), language, useLanguage);
    languages.setAttribute("aria-label", t("language"));
    const { session } = context;
    this.element = element("header.top", {}, link("/", element("span.brand", {}, "facemill")), this.tabs,
      element("div.right", {}, this.left, this.unsent, element("span.person", { title: session.person.role }, session.person.name), languages,
        context.canJudge ? button(t("train"), (event) => { event.currentTarget.blur(); this.training.open(); }, { className: "small train", title: t("train-hint") }) : null,
        button("?", (event) => { event.currentTarget.blur(); showHelp(); }, { className: "small", "data-keys": "", "aria-label": t("keys"), title: t("keys") }),
        session.sign_in ? button(t("sign-out"), () => this.#signOut(), { className: "small" }) : null));
    document.body.replaceChildren(this.element,
      context.canJudge ? "" : element("p.banner", {}, t("viewer")), this.#place, ...places, this.live);
    new Notices(context);
    context.outbox.addEventListener("changed", () => this.#showUnsent());
    context.outbox.addEventListener("settled", () => this.#recount(1000));
    this.#showUnsent();
    // What cannot be kept must not be judged.
    addEventListener("storage-failed", ({ detail }) => {
      context.canJudge = false;
      fail(new Error(t("storage-failed", { message: String(detail) })));
    });
    addEventListener("moved", () => this.#show(false));
    addEventListener("popstate", () => this.#show(true));
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.#recount());
    this.#show(false);
  }

  #show(isBack) {
    const state = { ...read(), isBack };
    this.#view?.close();
    if (!VIEWS[state.view]) {
      this.#view = null;
      this.#place.replaceChildren(element("main", {}, element("p", {}, t("not-found"))));
      return this.#listen({});
    }
    this.#view = new VIEWS[state.view](this.#context, state);
    this.#place.replaceChildren(this.#view.element);
    this.#listen(this.#view.actions);
    this.tabs.replaceChildren(...TABS.map((name) => {
      const tab = link(path(name, { where: state.where, sort: state.sort }), t(name));
      if (name === state.view) tab.setAttribute("aria-current", "page");
      return tab;
    }));
    document.title = `${t(TABS.includes(state.view) ? state.view : "photo", { id: state.photo ?? "" })} – ${this.#context.session.run} – facemill`;
    this.#context.announce(document.title);
    this.#recount();
  }

  #listen(actions) {
    listen(this.#context.canJudge ? { ...actions, train: () => this.training.open() } : actions);
  }

  #recount(after = 0) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#count(), after);
  }

  async #count() {
    this.#counting?.abort();
    const counting = new AbortController();
    this.#counting = counting;
    const view = this.#view;
    try {
      if (document.visibilityState === "visible") {
        const counts = await get("/api/counts", { where: view?.where ?? "" }, counting.signal);
        if (counting.signal.aborted) return;
        const chosen = read().where.match(/\b(ready|predicted|ok|ng|pending)\b/g) ?? Object.keys(counts.statuses);
        counts.chosen = chosen.reduce((sum, status) => sum + (counts.statuses[status] ?? 0), 0);
        const { wanted } = this.#context.session;
        this.left.textContent = counts.left > 0 ? t("left", { left: counts.left, wanted }) : t("wanted-reached", { wanted });
        if (view === this.#view) view?.showCounts(counts);
        this.#setOffline(false);
      }
    } catch (error) {
      if (counting.signal.aborted) return;
      if (error instanceof Unreachable || error.status >= 500) this.#setOffline(true);
    }
    this.#recount(RECOUNT);
  }

  #setOffline(isOffline) {
    this.unsent.classList.toggle("offline", isOffline);
    this.unsent.title = t(isOffline ? "offline" : "unsent-hint");
  }

  #showUnsent() {
    const { unsent } = this.#context.outbox;
    this.unsent.dataset.unsent = unsent;
    this.unsent.textContent = unsent === 0 ? t("all-sent") : t("unsent", { n: unsent });
    this.unsent.classList.toggle("some", unsent > 0);
  }

  async #signOut() {
    await this.#context.outbox.drained(3000);
    await call("DELETE", "/api/session").catch(() => {});
    location.assign("/sign-in");
  }
}

const signIn = () => {
  const to = location.pathname === "/sign-in" ? read().to ?? "/" : location.pathname + location.search;
  location.replace(`/sign-in?${new URLSearchParams({ to })}`);
};

async function start() {
  if (read().view === "sign-in") {
    document.body.replaceChildren(signInForm(read().to));
    document.querySelector("input").focus();
    return;
  }
  events.addEventListener("signed-out", signIn, { once: true });
  const waiting = element("p.message", {}, t("loading"));
  document.body.replaceChildren(waiting);
  const session = await patiently(async () => {
    try {
      return await get("/api/session");
    } catch (error) {
      if (error instanceof Unreachable) waiting.textContent = t("offline");
      throw error;
    }
  });
  let store;
  try {
    store = await Store.open(`facemill/${session.store}/${session.person.name}`);
    navigator.storage?.persist?.();
  } catch (error) {
    document.body.replaceChildren(element("p.message", { role: "alert" }, t("storage-failed", { message: String(error) })));
    return;
  }
  const desk = await Desk.take(store);
  const journal = await Journal.open(store, desk);
  const outbox = new Outbox(store, desk.client, session);
  const undo = await UndoStack.open(store, desk.number);
  const judge = new Judge(store, journal, outbox, undo, session);
  new Page({ session, store, desk, outbox, judge, canJudge: session.person.role === "curator" });
}

const fail = (error) => {
  if (error instanceof ApiError && error.status === 401) return;
  document.body.prepend(element("p.banner.failed", { role: "alert" }, t("error", { message: error?.message ?? String(error) })));
};

start().catch(fail);
