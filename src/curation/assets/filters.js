// The filter bar: statuses with counts, order, and a form for all other conditions.

import { get } from "./api.js";
import { UNJUDGED, go, path } from "./address.js";
import { NUMBER_FIELDS, STATUSES, format, parse } from "./conditions.js";
import { button, element, field, select } from "./elements.js";
import { REASONS } from "./judge.js";
import { count, t } from "./texts.js";

const SORTS = [
  "-p_ok", "p_ok", "uncertainty", "suggested", "random", "id", "-updated", "updated", "-published", "published", "-size", "blur",
  "-mirrored", "face_blur", "jpeg_quality", "-outlier",
];
const NAMES = { p_ok: "p-ok", mirrored_head: "mirrored-head" };
const nameOf = (field) => t(NAMES[field] ?? field);

// `state`: {where, sort}. `hasSort`: whether the view has an order.
export function filterBar(view, state, hasSort = true) {
  const conditions = parse(state.where);
  const use = (change) => go(path(view, { where: format({ ...conditions, ...change }), sort: state.sort }));
  const chips = STATUSES.map((status) => {
    const isChosen = conditions.statuses.includes(status);
    const statuses = isChosen ? conditions.statuses.filter((name) => name !== status) : [...conditions.statuses, status];
    return button(t(status), () => use({ statuses: STATUSES.filter((name) => statuses.includes(name)) }), {
      className: `chip ${status}`, "aria-pressed": String(isChosen), title: t(`${status}-hint`).replace(`${status}-hint`, ""),
      "data-status": status,
    });
  });
  const form = details(conditions, use, view, state);
  const extra = Object.keys(conditions).length > 4 || conditions.rest || Object.keys({ ...conditions.least, ...conditions.most }).length;
  const summary = element("summary", {}, t("filters"), extra ? element("span.count", {}, "•") : null);
  const sort = select(SORTS.includes(state.sort) ? sorts() : [[state.sort, state.sort], ...sorts()], state.sort,
    (value) => go(path(view, { where: state.where, sort: value })));
  sort.setAttribute("aria-label", t("sort"));
  const bar = element("div.filters", { role: "search", "aria-label": t("filters") },
    element("div.chips", { role: "group", "aria-label": t("status") }, chips), hasSort ? sort : null,
    element("details.more", {}, summary, form));
  // Counts of the statuses, whatever statuses are chosen.
  const where = format({ ...conditions, statuses: [] });
  const showCounts = ({ statuses }) => chips.forEach((chip) => {
    const number = element("span.count", {}, count(statuses[chip.dataset.status] ?? 0));
    chip.replaceChildren(t(chip.dataset.status), " ", number);
  });
  return { bar, where, showCounts };
}

const sorts = () => SORTS.map((name) => [name, t(`sort-${name}`)]);

function details(conditions, use, view, state) {
  const input = (properties) => element("input", { autocomplete: "off", spellcheck: false, ...properties });
  const label = input({ value: conditions.label ?? "", name: "label" });
  const host = input({ value: conditions.host ?? "", name: "host" });
  complete(label, "/api/labels", "labels", "label");
  complete(host, "/api/hosts", "hosts", "host");
  const person = input({ value: conditions.judged_by ?? "", name: "judged_by" });
  const sizes = [["", t("any")], ...[256, 512, 1024].map((size) => [String(size), t("or-more", { n: size })])];
  const least = conditions.least.size;
  if (least !== undefined && ![256, 512, 1024].includes(least)) sizes.push([String(least), t("or-more", { n: least })]);
  const size = select(sizes, String(least ?? ""), () => {});
  size.name = "size";
  const reason = select([["", t("any")], ...REASONS.map((name) => [name, t(name)])], conditions.reason ?? "", () => {});
  reason.name = "reason";
  const date = (side, name) => input({ type: "date", value: conditions[side].judged_at ?? "", name });
  const [from, to] = [date("least", "judged-from"), date("most", "judged-to")];
  const rest = input({ value: conditions.rest, name: "query", className: "query" });
  const numbers = NUMBER_FIELDS.map((name) => {
    const bound = (side) => input({
      type: "number", step: "any", value: conditions[side][name] ?? "", name: `${name}-${side}`,
      "aria-label": `${nameOf(name)} ${t(side === "least" ? "from" : "to")}`,
      placeholder: t(side === "least" ? "from" : "to"),
    });
    return [name, bound("least"), bound("most")];
  });
  const ranges = numbers.map(([name, low, high]) =>
    element("fieldset.range", {}, element("legend", {}, nameOf(name)), low, high));
  const submit = (event) => {
    event.preventDefault();
    const bounds = { least: {}, most: {} };
    // The largest size has no control of its own.
    if ("size" in conditions.most) bounds.most.size = conditions.most.size;
    if (size.value) bounds.least.size = Number(size.value);
    for (const [name, low, high] of numbers) {
      if (low.value !== "") bounds.least[name] = Number(low.value);
      if (high.value !== "") bounds.most[name] = Number(high.value);
    }
    if (from.value) bounds.least.judged_at = from.value;
    if (to.value) bounds.most.judged_at = to.value;
    use({
      ...bounds, label: label.value.trim(), host: host.value.trim(), judged_by: person.value.trim(), reason: reason.value,
      rest: rest.value.trim(),
    });
  };
  return element("form", { onsubmit: submit },
    field(t("label-contains"), label), field(t("size"), size), field(t("reason"), reason), field(t("host"), host),
    field(t("judged-by"), person), field(t("judged-from"), from), field(t("judged-to"), to), ...ranges,
    element("div.wide", {}, field(t("query"), rest)),
    element("div.choices.wide", {}, element("button.main", { type: "submit" }, t("apply")),
      button(t("clear"), () => go(path(view, { where: UNJUDGED, sort: state.sort })))));
}

// Completes a name from the server's list, most frequent first.
function complete(input, url, list, key) {
  const names = element(`datalist#${list}`);
  input.setAttribute("list", list);
  let stop = new AbortController();
  const ask = async () => {
    stop.abort();
    stop = new AbortController();
    try {
      const answer = await get(url, { prefix: input.value, limit: 20 }, stop.signal);
      names.replaceChildren(...answer[list].map((row) => element("option", { value: row[key] }, count(row.count))));
      if (!names.isConnected) input.after(names);
    } catch {
      // Without completion, the name is typed.
    }
  };
  input.addEventListener("focus", ask);
  input.addEventListener("input", ask);
}
