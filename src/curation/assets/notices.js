// Messages: short ones that go by themselves, and conflicts and refusals that stay until somebody deals with them.

import { facePath } from "./address.js";
import { button, element, link } from "./elements.js";
import { nameOf, words } from "./facts.js";
import { JUDGEMENTS } from "./judge.js";
import { t } from "./texts.js";

const SHOWN = 5;
const toast = element("div.toast", { role: "status", "aria-live": "polite" });
const stack = element("section.notices", { "aria-label": t("notices") });
let timer = 0;

export const places = [stack, toast];

export function say(text, ...controls) {
  toast.replaceChildren(text, ...controls);
  toast.classList.add("shown");
  clearTimeout(timer);
  timer = setTimeout(() => toast.classList.remove("shown"), controls.length > 0 ? 20_000 : 3000);
}

export class Notices {
  #context;

  constructor(context) {
    this.#context = context;
    context.outbox.addEventListener("settled", ({ detail }) => {
      if (detail.some(({ result, verdicts }) => verdicts || result === "refused")) this.show();
    });
    this.show();
  }

  async show() {
    const notices = (await this.#context.store.all("notices")).sort((a, b) => b.at - a.at);
    stack.replaceChildren(...notices.slice(0, SHOWN).map((notice) => this.#card(notice)));
  }

  #card(notice) {
    const close = button(t("dismiss"), () => this.#dismiss(notice));
    const picture = element("img", { src: `/pictures/crops/${notice.crop}?size=256`, alt: "", width: 96, height: 96 });
    const face = link(facePath(notice.photo_id), picture);
    if (notice.kind === "refused") {
      const text = t("refused", { label: nameOf(notice), message: notice.message ?? "" });
      return element("article", {}, face, element("div", {}, element("p", {}, text), element("div.choices", {}, close)));
    }
    const mine = notice.verdicts.find(({ id }) => id === notice.id);
    const others = notice.verdicts.filter(({ id }) => id !== notice.id);
    const choices = JUDGEMENTS.map((judgement) =>
      button(t(judgement), () => this.#decide(notice, judgement), { className: judgement }));
    return element("article.conflict", {}, face, element("div", {},
      element("h3", {}, t("conflict", { label: nameOf(notice) })),
      element("p", {}, t("you", { judgement: words((mine ?? notice).judgement, (mine ?? notice).reason) }), " · ",
        others.map((other) => t("they", { by: other.by, judgement: words(other.judgement, other.reason) })).join(" · ")),
      element("p.hint", {}, t("conflict-hint")),
      element("div.choices", {}, choices, close)));
  }

  // A verdict of somebody who has seen all of them.
  async #decide(notice, judgement) {
    const { judge } = this.#context;
    const { photo_id, crop, label, ticket, verdicts } = notice;
    const last = verdicts.at(-1);
    const entry = {
      list: null, index: null, photo_id, crop, label, ticket, p_ok: null, judgement: last?.judgement ?? null, reason: last?.reason ?? null,
      counting: verdicts.map(({ id }) => id),
    };
    await judge.judge([{ entry, judgement, reason: null }], "single", null);
    await this.#dismiss(notice);
    dispatchEvent(new CustomEvent("decided", { detail: entry }));
  }

  async #dismiss({ id }) {
    await this.#context.store.write(["notices"], ({ notices }) => notices.delete(id));
    await this.show();
  }
}
