// Numbers: faces by status and size, verdicts by day, hour and person, agreement, balance.

import { get, patiently } from "./api.js";
import { columns } from "./charts.js";
import { path } from "./address.js";
import { Balance } from "./balance.js";
import { STATUSES } from "./conditions.js";
import { element, link, table } from "./elements.js";
import { filterBar } from "./filters.js";
import { count, language, percent, t } from "./texts.js";

const HOUR = 3_600_000;

export class StatisticsView {
  actions = {};
  #context;
  #stop = new AbortController();

  constructor(context, state) {
    this.#context = context;
    this.bar = filterBar("statistics", state, false);
    this.numbers = element("div");
    this.sizes = element("section");
    this.balance = new Balance(state.where, this.#stop.signal);
    this.element = element("main.statistics", {}, this.bar.bar, this.sizes, this.numbers, this.balance.element);
    this.#load();
  }

  close() {
    this.#stop.abort();
  }

  get where() {
    return this.bar.where;
  }

  // Counts of the filter without its statuses.
  showCounts(counts) {
    this.bar.showCounts(counts);
    const row = (name, statuses) => [name, ...STATUSES.map((status) => count(statuses[status] ?? 0)),
      count(STATUSES.reduce((sum, status) => sum + (statuses[status] ?? 0), 0))];
    const rows = [row(t("total"), counts.statuses),
      ...Object.entries(counts.sizes ?? {}).sort(([a], [b]) => a - b).map(([size, statuses]) => row(t("or-more", { n: Number(size) }), statuses))];
    this.sizes.replaceChildren(table(t("by-status"), ["", ...STATUSES.map((status) => t(status)), t("total")], rows));
  }

  async #load() {
    const { signal } = this.#stop;
    try {
      const statistics = await patiently(() => get("/api/statistics", {}, signal), signal);
      this.#show(statistics);
      await this.balance.load();
    } catch (error) {
      if (!signal.aborted) this.numbers.replaceChildren(element("p", { role: "alert" }, t("error", { message: error.message })));
    }
  }

  #show({ by_day, by_hour, by_person, agreement, ok_left, wrong_persons }) {
    const days = new Map();
    for (const { day, verdicts } of by_day) days.set(day, (days.get(day) ?? 0) + verdicts);
    const day = columns([...days].sort(([a], [b]) => (a < b ? -1 : 1)).slice(-90), t("by-day"), count);
    const hours = new Map(lastHours().map((name) => [name, 0]));
    for (const { hour: name, verdicts } of by_hour) if (hours.has(name)) hours.set(name, hours.get(name) + verdicts);
    const hour = columns([...hours].map(([name, verdicts]) => [hourName(name), verdicts]), t("by-hour"), count);
    const people = table(t("by-person"), [t("person"), t("verdicts"), t("view-bulk")],
      by_person.map(({ person, verdicts, in_bulk }) => [person, count(verdicts), count(in_bulk)]));
    const agreements = table(t("agreement"), [t("person"), t("pairs"), t("same"), t("share"), t("interval")],
      agreement.map(({ person, pairs, same, share, low, high }) =>
        [person, count(pairs), count(same), percent(share), pairs > 0 ? `${percent(low)} – ${percent(high)}` : "–"]));
    this.numbers.replaceChildren(element("section.charts", {}, hour, day), okLeft(ok_left), wrongPersons(wrong_persons), element("section", {}, people),
      element("section", {}, agreements, element("p.hint", {}, t("agreement-hint"))));
  }
}

// The faces whose label is probably another person's.
const wrongPersons = (count) => (count === null ? "" : element("section.wrong-persons", {}, element("h2", {}, t("wrong-persons")),
  element("p", {}, link(path("grid", { where: "wrong_person" }), t("wrong-persons-of", { n: count })))));

// How many OK are left among the unjudged, and whether a person may stop.
function okLeft({ random, random_ok, unjudged, found, left, found_share_low, is_complete }) {
  const about = (number) => count(Math.round(number));
  const content = left === null
    ? [element("p", {}, t("ok-left-unknown"))]
    : [
      element("p", {}, element("span.large", {}, about(left.count)), " ", t("ok-left-of", { low: about(left.low), high: about(left.high), unjudged: count(unjudged) })),
      element("p", {}, t(is_complete ? "ok-left-stop" : "ok-left-go-on", { found: count(found), share: percent(found_share_low) })),
      element("p.hint", {}, t("ok-left-hint", { random: count(random), ok: count(random_ok) })),
    ];
  return element("section.ok-left", {}, element("h2", {}, t("ok-left")), content);
}

// The beginnings of the last 48 hours, in milliseconds since 1970.
function lastHours() {
  const now = Date.now();
  const first = now - (now % HOUR) - 47 * HOUR;
  return Array.from({ length: 48 }, (_, index) => first + index * HOUR);
}

const hourName = (hour) => new Date(hour).toLocaleString(language, { weekday: "short", hour: "2-digit", minute: "2-digit" });
