// The border between OK and NG: a slider over P(OK), what lies around it, and bulk judgements.

import { ApiError, call, get, patiently, post, randomHex } from "./api.js";
import { ask, button, element } from "./elements.js";
import { histogram } from "./charts.js";
import { filterBar } from "./filters.js";
import { crop } from "./grid.js";
import { say } from "./notices.js";
import { count, percent, probability, t } from "./texts.js";

export class BorderView {
  actions = {};
  #context;
  #state;
  #stop = new AbortController();
  #asking = null;
  #border = null;
  #p;
  #due = 0;

  constructor(context, state) {
    this.#context = context;
    this.#state = state;
    this.#p = context.session.threshold;
    this.bar = filterBar("border", state, false);
    this.slider = element("input", { type: "range", min: 0, max: 1, step: 0.01, value: this.#p, id: "border", "aria-valuetext": probability(this.#p) });
    this.value = element("output", { for: "border" });
    this.chart = element("div");
    this.above = element("strong");
    this.below = element("strong");
    this.precision = element("div.precision");
    this.crops = element("div.cells.border");
    this.around = element("h2");
    this.threshold = element("p.hint");
    this.message = element("div.message");
    this.accept = button("", () => this.#bulk("ok"), { className: "ok" });
    this.reject = button("", () => this.#bulk("ng"), { className: "ng" });
    this.use = button("", () => this.#useThreshold());
    this.undo = button(t("bulk-undo"), () => this.#undoBulk());
    this.element = element("main.border", {}, this.bar.bar,
      element("section.card", {},
        element("div.field", {}, element("label", { for: "border" }, t("border-at"), " ", this.value), this.chart, this.slider),
        element("dl.sides", {}, element("dt", {}, t("below")), element("dd", {}, this.below), element("dt", {}, t("above")), element("dd", {}, this.above)),
        this.precision, element("div.choices", {}, this.reject, this.accept, this.undo),
        element("div.choices", {}, this.use), this.threshold),
      this.message, this.around, this.crops);
    this.slider.addEventListener("input", () => {
      this.#p = Number(this.slider.value);
      this.#label();
      clearTimeout(this.#due);
      this.#due = setTimeout(() => this.#load(), 120);
    });
    this.#label();
    this.#load();
    this.#goOn();
  }

  close() {
    clearTimeout(this.#due);
    this.#asking?.abort();
    this.#stop.abort();
  }

  get where() {
    return this.bar.where;
  }

  showCounts(counts) {
    this.bar.showCounts(counts);
    if (counts.threshold !== undefined && counts.threshold !== this.#context.session.threshold) {
      this.#context.session.threshold = counts.threshold;
      this.#label();
    }
  }

  #label() {
    const p = probability(this.#p);
    this.value.textContent = p;
    this.slider.setAttribute("aria-valuetext", p);
    this.around.textContent = t("around", { p });
    this.use.textContent = t("use-threshold", { p });
    this.threshold.textContent = t("threshold-is", { p: probability(this.#context.session.threshold) });
    this.use.disabled = !this.#context.canJudge || this.#p === this.#context.session.threshold;
    const border = this.#border?.p === this.#p ? this.#border : null;
    this.accept.disabled = !this.#context.canJudge || !border || border.above === 0;
    this.reject.disabled = !this.#context.canJudge || !border || border.below === 0;
    this.accept.textContent = t("accept-above", { n: border?.above ?? "..." });
    this.reject.textContent = t("reject-below", { n: border?.below ?? "..." });
    if (this.#border) this.chart.replaceChildren(histogram(this.#border.histogram.bins, this.#p, t("histogram")));
  }

  async #load() {
    this.#asking?.abort();
    const asking = new AbortController();
    this.#asking = asking;
    const p = this.#p;
    try {
      const border = await patiently(() => get("/api/border", { p, where: this.#state.where }, asking.signal), asking.signal);
      if (asking.signal.aborted) return;
      this.#border = { ...border, p };
      this.#show();
    } catch (error) {
      if (asking.signal.aborted) return;
      this.message.replaceChildren(element("p", { role: "alert" }, t("error", { message: error.message })));
    }
  }

  #show() {
    const { above, below, precision, crops } = this.#border;
    this.message.replaceChildren();
    this.above.textContent = count(above);
    this.below.textContent = count(below);
    const content = precision
      ? [element("span.large", {}, percent(precision.share)), element("span.hint", {}, t("precision-of", {
        ok: precision.ok, n: precision.n, low: percent(precision.low), high: percent(precision.high),
      }))]
      : [element("span.hint", {}, t("precision-none"))];
    this.precision.replaceChildren(element("span", {}, t("precision")), ...content);
    this.crops.replaceChildren(...crops.map((face) => element("figure.cell", {}, crop(face), element("figcaption", {}, probability(face.p_ok)))));
    this.#label();
  }

  async #bulk(judgement) {
    const { above, below } = this.#border;
    const p = this.#p;
    let n = judgement === "ok" ? above : below;
    const side = judgement === "ok" ? { from: p } : { below: p };
    for (;;) {
      const question = t(judgement === "ok" ? "accept-question" : "reject-question", { n, p: probability(p) });
      const content = element("div", {}, element("p", {}, question), element("p.hint", {}, t("bulk-hint")));
      const answer = await ask(t("border-title"), content,
        [["", t("cancel")], ["yes", t(judgement === "ok" ? "accept" : "reject", { n }), judgement]]);
      if (answer !== "yes") return;
      const bulk = { id: randomHex(16), judgement, where: this.#state.where, ...side, count: n };
      // A tab that is closed now goes on when it is opened again.
      await this.#context.store.write(["bulk"], ({ bulk: place }) => {
        place.clear();
        place.put({ id: bulk.id, body: bulk, state: "sent" });
      });
      const changed = await this.#send(bulk);
      if (changed === null) return;
      n = changed;
      say(t("bulk-changed", { n }));
    }
  }

  // Answers the true count if there are other faces by now.
  async #send(bulk) {
    const { store, outbox } = this.#context;
    say(t("bulk-running", { n: bulk.count }));
    await outbox.drained(5000);
    try {
      const { stored, undo } = await patiently(() => post("/api/bulk", bulk), this.#stop.signal);
      await store.write(["bulk"], ({ bulk: place }) => place.put({ id: bulk.id, body: bulk, state: "stored", undo, stored }));
      say(t("bulk-done", { n: stored, judgement: t(bulk.judgement) }), button(t("undo"), () => this.#undoBulk()));
    } catch (error) {
      if (this.#stop.signal.aborted) return null;
      await store.write(["bulk"], ({ bulk: place }) => place.clear());
      if (error instanceof ApiError && error.status === 409 && Number.isInteger(error.count)) return error.count;
      say(t("error", { message: error.message }));
    }
    this.#showUndo();
    this.#load();
    this.#context.recount();
    return null;
  }

  async #undoBulk() {
    const { store } = this.#context;
    const [bulk] = await store.all("bulk");
    if (bulk?.state !== "stored") return;
    this.undo.disabled = true;
    try {
      const { stored } = await patiently(() => post(`/api/bulk/${bulk.undo}/undo`), this.#stop.signal);
      await store.write(["bulk"], ({ bulk: place }) => place.clear());
      say(t("bulk-undone", { n: stored }));
    } catch (error) {
      if (!this.#stop.signal.aborted) say(t("error", { message: error.message }));
    }
    this.#showUndo();
    this.#load();
    this.#context.recount();
  }

  async #showUndo() {
    const [bulk] = await this.#context.store.all("bulk");
    this.undo.hidden = bulk?.state !== "stored";
    this.undo.disabled = !this.#context.canJudge;
  }

  // Finishes a bulk judgement that a closed tab left.
  async #goOn() {
    await this.#showUndo();
    const [bulk] = await this.#context.store.all("bulk");
    if (bulk?.state === "sent") await this.#send(bulk.body);
  }

  async #useThreshold() {
    const threshold = this.#p;
    try {
      await call("PUT", "/api/threshold", { threshold }, this.#stop.signal);
      this.#context.session.threshold = threshold;
      say(t("threshold-set", { p: probability(threshold) }));
      this.#label();
      this.#context.recount();
    } catch (error) {
      if (!this.#stop.signal.aborted) say(t("error", { message: error.message }));
    }
  }
}
