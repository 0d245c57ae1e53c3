// The conditions of the filter bar as a query, and back. What the bar has no control for stays text.

export const STATUSES = ["ready", "predicted", "ok", "ng", "pending"];
const NUMBERS = [
  "p_ok", "size", "blur", "exposure", "score", "mirrored", "mirrored_head", "face_blur", "contrast", "saturation", "jpeg_quality",
  "yaw", "pitch", "eyes_open", "mouth_open", "outlier",
];
export const NUMBER_FIELDS = NUMBERS.filter((name) => name !== "size");
const TEXTS = { label: "contains", host: "=", judged_by: "=", reason: "=" };
const DATES = ["judged_at"];

const quoted = (text) => `'${text.replaceAll("'", "''")}'`;
const unquoted = (text) => {
  const quote = text[0];
  if (quote !== "'" && quote !== '"') return text;
  return text.slice(1, -1).replaceAll(quote + quote, quote);
};

// The parts of a query that `and` or a comma joins, outside of quotes and parentheses.
function parts(where) {
  const found = [];
  const pattern = /'(?:[^']|'')*'|"(?:[^"]|"")*"|[(),]|\band\b|[^\s'"(),]+|\s+/gi;
  let [depth, part] = [0, ""];
  for (const [token] of where.matchAll(pattern)) {
    if (token === "(") depth++;
    if (token === ")") depth--;
    if (depth === 0 && (token === "," || /^and$/i.test(token))) {
      found.push(part.trim());
      part = "";
    } else part += token;
  }
  return [...found, part.trim()].filter(Boolean);
}

export function parse(where) {
  const conditions = { statuses: [], least: {}, most: {}, rest: "" };
  const rest = [];
  // `or` binds weaker than `and`: such a query is left as it is.
  const found = /\bor\b/i.test(where.replace(/'(?:[^']|'')*'|"(?:[^"]|"")*"|\([^)]*\)/g, "")) ? [where.trim()] : parts(where);
  for (const part of found) if (!known(part, conditions)) rest.push(part);
  conditions.rest = rest.join(" and ");
  return conditions;
}

function known(part, conditions) {
  const several = /^status\s+in\s*\(([^()]*)\)$/i.exec(part);
  const [, name, operator, value] = /^(\w+)\s*(>=|<=|=|\bcontains\b)\s*('(?:[^']|'')*'|"(?:[^"]|"")*"|[\w.:/+@%-]+)$/i.exec(part) ?? [];
  if (several || (name === "status" && operator === "=")) {
    const statuses = (several ? several[1].split(",") : [value]).map((text) => unquoted(text.trim()));
    if (conditions.statuses.length > 0 || !statuses.every((status) => STATUSES.includes(status))) return false;
    conditions.statuses = statuses;
    return true;
  }
  if (NUMBERS.includes(name) && (operator === ">=" || operator === "<=") && Number.isFinite(Number(value))) {
    const side = operator === ">=" ? conditions.least : conditions.most;
    if (name in side) return false;
    side[name] = Number(value);
    return true;
  }
  if (DATES.includes(name) && (operator === ">=" || operator === "<=")) {
    const side = operator === ">=" ? conditions.least : conditions.most;
    if (name in side || !/^\d{4}-\d\d-\d\d$/.test(unquoted(value))) return false;
    side[name] = unquoted(value);
    return true;
  }
  if (name in TEXTS && operator.toLowerCase() === TEXTS[name] && !(name in conditions)) {
    conditions[name] = unquoted(value);
    return true;
  }
  return false;
}

export function format(conditions) {
  const { statuses, least, most, rest } = conditions;
  const parts = [];
  if (statuses.length === 1) parts.push(`status=${statuses[0]}`);
  else if (statuses.length > 1) parts.push(`status in (${statuses.join(", ")})`);
  for (const [name, operator] of Object.entries(TEXTS)) {
    if (!conditions[name]) continue;
    parts.push(operator === "=" ? `${name}=${quoted(conditions[name])}` : `${name} ${operator} ${quoted(conditions[name])}`);
  }
  for (const name of [...NUMBERS, ...DATES]) {
    const text = (value) => (DATES.includes(name) ? quoted(value) : value);
    if (name in least) parts.push(`${name}>=${text(least[name])}`);
    if (name in most) parts.push(`${name}<=${text(most[name])}`);
  }
  if (rest) parts.push(parts.length > 0 && /\bor\b/i.test(rest) ? `(${rest})` : rest);
  return parts.join(" and ");
}
