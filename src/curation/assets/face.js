// Everything about one face.

import { ApiError, get, patiently, post } from "./api.js";
import { path } from "./address.js";
import { ask, button, element, link, table } from "./elements.js";
import { describe, factRows, landmarks, nameOf, original, words } from "./facts.js";
import { crop } from "./grid.js";
import { JUDGEMENTS, overlay } from "./judge.js";
import { keysOf } from "./keys.js";
import { say } from "./notices.js";
import { moment, probability, t } from "./texts.js";

export class FaceView {
  actions = {
    ng: () => this.#judge("ng"),
    pending: () => this.#judge("pending"),
    ok: () => this.#judge("ok"),
    undo: () => this.#undo(),
  };
  where = null;
  #context;
  #photo;
  #stop = new AbortController();
  #face = null;

  constructor(context, { photo }) {
    this.#context = context;
    this.#photo = photo;
    this.element = element("main.face", {}, element("p", {}, t("loading")));
    addEventListener("decided", () => this.#load(), { signal: this.#stop.signal });
    context.outbox.addEventListener("settled", ({ detail }) => {
      if (detail.some(({ crop }) => crop === this.#face?.crop)) this.#load();
    }, { signal: this.#stop.signal });
    this.#load();
  }

  close() {
    this.#stop.abort();
  }

  showCounts() {}

  async #load() {
    const { signal } = this.#stop;
    try {
      const face = await patiently(() => get(`/api/faces/${encodeURIComponent(this.#photo)}`, {}, signal), signal);
      const unsent = (await this.#context.outbox.pending()).get(`${face.photo_id} ${face.crop}`);
      Object.assign(face, { list: null, index: null, counting: face.verdicts.map(({ id }) => id) });
      if (unsent) overlay(face, unsent, this.#context.session.threshold);
      this.#face = face;
      this.#show();
    } catch (error) {
      if (signal.aborted) return;
      const isUnknown = error instanceof ApiError && error.status === 404;
      this.element.replaceChildren(element("p", { role: "alert" },
        isUnknown ? t("face-not-found", { id: this.#photo }) : t("error", { message: error.message })));
    }
  }

  #show() {
    const face = this.#face;
    const picture = element("div.frame", {}, element("img", { src: face.picture, alt: describe(face), width: face.size, height: face.size }),
      landmarks(face, face.size));
    const isViewer = !this.#context.canJudge;
    const buttons = JUDGEMENTS.map((judgement) => button(t(judgement), (event) => {
      this.#judge(judgement);
      event.currentTarget.blur();
    }, { className: judgement, disabled: isViewer, "aria-keyshortcuts": keysOf(judgement) }));
    const { source } = face;
    const rows = (pairs) => element("dl.facts", {}, pairs.flatMap(([name, value]) =>
      value === null || value === undefined || value === "" ? [] : [element("dt", {}, name), element("dd", {}, value)]));
    const outside = (url) => (/^https?:\/\//.test(url ?? "") ? element("a", { href: url, rel: "noreferrer noopener", target: "_blank" }, url) : url);
    const history = [...face.history].reverse().map((verdict) => [
      moment(verdict.at), words(verdict.judgement, verdict.reason) + (verdict.repeat ? ` (${t("repeat")})` : "")
        + (verdict.crop === face.crop ? "" : ` (${t("earlier-crop")})`), verdict.by,
      verdict.selection === "import" ? t("view-import") : t(`view-${verdict.view}`), verdict.selection ?? "–", probability(verdict.seen?.p_ok),
    ]);
    const predictions = face.predictions.map(({ name, model, p_ok, current }) =>
      [`${name ?? model.slice(0, 12)}${current ? ` (${t("current")})` : ""}`, probability(p_ok)]);
    const trace = face.trace?.url ? outside(face.trace.url) : face.trace?.id;
    const columns = Object.entries(face.columns ?? {});
    this.element.dataset.drawn = "yes";
    this.element.replaceChildren(...[
      element("header", {}, element("h1", {}, nameOf(face)), element("span.status", { className: `status ${face.status}` },
        face.judgement ? words(face.judgement, face.reason) : t(face.status)), button(t("back"), () => history_back())),
      ...face.earlier.map(({ judgement, reason, by }) =>
        element("p.earlier", {}, t("judged-earlier", { judgement: words(judgement, reason), by }))),
      element("div.pair", {}, element("section", {}, element("h2", {}, t("crop")), picture,
        element("div.judge", { role: "group", "aria-label": t("verdict") }, buttons)),
      element("section", {}, element("h2", {}, t("square")), original(face, t("square")))),
      element("section", {}, element("h2", {}, t("numbers")), element("dl.facts.wide", {}, factRows(face))),
      element("section", {}, element("h2", {}, t("source")), rows([
        [t("photo", { id: "" }).trim(), face.photo_id], [t("photo-url"), outside(source.photo_url)], [t("source-url"), outside(source.source_url)],
        [t("host"), source.host], [t("trace"), trace], ["SHA-256", face.crop],
      ])),
      face.group.length > 0 ? this.#group() : null,
      face.identity ? identity(face.identity) : null,
      columns.length > 0 ? element("section", {}, element("h2", {}, t("columns")), rows(columns)) : null,
      element("section", {}, table(t("history"), [t("time"), t("verdict"), t("person"), t("view"), t("chosen"), t("p-ok")], history)),
      element("section", {}, table(t("predictions"), [t("model"), t("p-ok")], predictions)),
      face.story?.length > 0 ? element("section", {}, element("h2", {}, t("story")), element("pre", { tabIndex: 0 }, face.story.join("\n"))) : null,
    ].filter(Boolean));
  }

  // The near-duplicates, and the way out of their group.
  #group() {
    const cells = this.#face.group.map((face) => element("figure.cell", { className: `cell ${face.judgement ?? ""}` }, crop(face),
      element("figcaption", {}, element("span", {}, `${face.size} px`), element("span", {}, t(face.status)))));
    const part = button(t("part"), () => this.#part(), { disabled: !this.#context.canJudge, "data-action": "part" });
    return element("section.near", {}, element("h2", {}, t("near-duplicates")), element("p.hint", {}, t("near-duplicates-hint")),
      element("div.cells.border", {}, cells), part);
  }

  async #part() {
    const answer = await ask(t("near-duplicates"), element("p", {}, t("part-question")), [["", t("cancel")], ["yes", t("part"), "main"]]);
    if (answer !== "yes") return;
    try {
      await post(`/api/faces/${encodeURIComponent(this.#photo)}/part`);
      say(t("parted"));
    } catch (error) {
      say(t("error", { message: error.message }));
    }
    if (!this.#stop.signal.aborted) this.#load();
  }

  #judge(judgement) {
    if (!this.#face || !this.#context.canJudge) return;
    this.#context.judge.judge([{ entry: this.#face, judgement, reason: null }], "single", null);
    this.#show();
    this.#context.announce(t("judged", { judgement: t(judgement), label: nameOf(this.#face) }));
  }

  #undo() {
    if (!this.#context.canJudge) return;
    if (!this.#context.judge.canUndo) return say(t("nothing-to-undo"));
    const entryOf = (change) => (change.list === null && change.crop === this.#face?.crop ? this.#face : null);
    const [change] = this.#context.judge.undo(entryOf, null);
    say(t("undone", { label: nameOf(change), judgement: words(change.before.judgement, change.before.reason) }));
    if (this.#face) this.#show();
  }
}

// The faces that look like this person, and whether the label is probably another's.
const identity = ({ number, faces, looks_like }) =>
  element("section.identity", {}, element("h2", {}, t("identity")), looks_like === null ? null : element("p", {}, t("looks-like", { label: looks_like })),
    element("p", {}, link(path("grid", { where: `identity=${number}` }), t("identity-faces", { n: faces }))));

const history_back = () => history.back();
