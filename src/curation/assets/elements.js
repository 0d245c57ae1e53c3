// Elements of the page. Texts are always text nodes: nothing is parsed as HTML.

// element("button.large#id", {type: "button", onclick: f}, "text", child, ...)
export function element(what, properties = {}, ...children) {
  const [, name, rest] = /^([a-z0-9]+)(.*)$/.exec(what);
  const made = document.createElement(name);
  for (const [, mark, word] of rest.matchAll(/([.#])([\w-]+)/g)) {
    if (mark === "#") made.id = word;
    else made.classList.add(word);
  }
  set(made, properties);
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function svg(name, properties = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(properties)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function set(made, properties) {
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key.startsWith("aria-") || key.startsWith("data-") || key === "role" || key === "for" || key === "list") {
      made.setAttribute(key, value);
    } else made[key] = value;
  }
}

export const button = (text, onclick, properties = {}) =>
  element("button", { type: "button", onclick, ...properties }, text);

export const link = (href, ...children) => element("a", { href }, ...children);

export const field = (label, control, ...more) => {
  control.id ||= `field-${++fields}`;
  return element("div.field", {}, element("label", { for: control.id }, label), control, ...more);
};
let fields = 0;

export const select = (options, value, onchange) => {
  const made = element("select", { onchange: (event) => onchange(event.target.value) });
  for (const [key, text] of options) made.append(element("option", { value: key, selected: key === value }, text));
  made.value = value;
  return made;
};

// A table with a heading. Each row is a list of texts or elements; the first column is text.
export function table(title, columns, rows) {
  const head = element("tr", {}, columns.map((name) => element("th", { scope: "col" }, name)));
  const body = rows.map((cells) => element("tr", {}, cells.map((cell) => element("td", {}, cell))));
  return element("div.scroll", { tabIndex: 0, role: "region", "aria-label": title },
    element("table.words-1", {}, element("caption", {}, element("h2", {}, title)),
      element("thead", {}, head), element("tbody", {}, body)));
}

// A dialog that is removed when it closes. The promise gives its return value.
export function ask(title, content, buttons) {
  const dialog = element("dialog", { "aria-label": title }, element("h2", {}, title), content,
    element("div.choices", {}, buttons.map(([value, text, kind]) =>
      button(text, () => dialog.close(value), { className: kind ?? "", value }))));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => {
    dialog.remove();
    resolve(dialog.returnValue);
  }));
}
