// Balance: how the faces of a filter are spread, and what caps would leave.

import { get, patiently } from "./api.js";
import { path } from "./address.js";
import { format } from "./conditions.js";
import { element, field, link, table } from "./elements.js";
import { count, percent, t } from "./texts.js";

const LISTED = 50;

export class Balance {
  #where;
  #signal;
  #tables = element("div.balance");
  #caps = ["label", "identity"].map((of) => element("input", {
    type: "number", min: 1, name: `max_per_${of}`, onchange: () => this.load(),
  }));

  constructor(where, signal) {
    this.#where = where;
    this.#signal = signal;
    const fields = this.#caps.map((input) => field(t(input.name), input));
    this.element = element("section", {}, element("h2", {}, t("balance")), element("div.caps", {}, fields), this.#tables);
  }

  async load() {
    const caps = Object.fromEntries(this.#caps.map((input) => [input.name, Math.max(0, Math.trunc(input.value))]));
    const asked = JSON.stringify(caps);
    this.#tables.dataset.asked = asked;
    const balance = await patiently(
      () => get("/api/balance", { where: this.#where, limit: LISTED, ...caps }, this.#signal), this.#signal);
    // Of two requests under way, the later one counts.
    if (this.#tables.dataset.asked === asked) this.#show(balance);
  }

  #show({ faces, left, groupings, caps }) {
    const hasCaps = left !== undefined;
    const columns = [t("faces"), t("share"), ...(hasCaps ? [t("cap-left"), t("share")] : [])];
    const row = (by) => (share) => [name(by, share.name), count(share.faces), percent(share.faces / (faces || 1)),
      ...(hasCaps ? [count(share.left), percent(share.left / (left || 1))] : [])];
    const all = table(t("total"), ["", ...columns], [row("")({ name: t("total"), faces, left })]);
    const tables = groupings.map(({ by, values, shares, others }) =>
      table(`${t(by)} (${count(values)})`, ["", ...columns], [...shares.map(row(by)), ...(others ? [row("")(others)] : [])]));
    const effects = ["label", "identity"].map((of) => caps.filter((effect) => effect.of === of)).filter((rows) => rows.length > 0);
    const ofCaps = effects.map((rows) => table(t(`max_per_${rows[0].of}`), ["", t("cap-left"), t("share"), t("cap-cut")],
      rows.map((effect) => [count(effect.limit), count(effect.left), percent(effect.left / (faces || 1)), count(effect.cut)])));
    this.#tables.replaceChildren(...(hasCaps ? [all] : []), ...tables, ...ofCaps);
  }
}

function name(by, value) {
  if (by === "pose") return t(value);
  if (by !== "label" || value === "(none)") return value;
  const rest = `label='${value.replaceAll("'", "''")}'`;
  return link(path("single", { where: format({ statuses: [], least: {}, most: {}, rest }) }), value);
}
