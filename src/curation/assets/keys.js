// Keys and what they do. People can give every action other keys; these are kept in this browser.

import { ask, button, element } from "./elements.js";
import { t } from "./texts.js";

const DEFAULTS = {
  ng: ["1"],
  pending: ["2"],
  ok: ["3"],
  next: ["ArrowRight", "Space"],
  previous: ["ArrowLeft", "Shift+Space"],
  undo: ["u"],
  reason: ["r"],
  landmarks: ["l"],
  original: ["o"],
  up: ["ArrowUp"],
  down: ["ArrowDown"],
  mark: ["x"],
  page: ["Enter"],
  rest: ["m"],
  fresh: ["n"],
  train: ["t"],
  help: ["?"],
};
const PLACE = "facemill-keys";

let bindings = read();
let byKey = index();
let handlers = {};

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(PLACE)) ?? {};
    const isValid = (keys) => Array.isArray(keys) && keys.every((key) => typeof key === "string");
    return { ...DEFAULTS, ...Object.fromEntries(Object.entries(kept).filter(([name, keys]) => name in DEFAULTS && isValid(keys))) };
  } catch {
    return { ...DEFAULTS };
  }
}

function index() {
  return new Map(Object.entries(bindings).flatMap(([action, keys]) => keys.map((key) => [key, action])));
}

// The name of a key: what it types on the person's keyboard, or its place if that is no Latin character.
export function nameOf({ key, code, shiftKey }) {
  if (key === " ") return shiftKey ? "Shift+Space" : "Space";
  if (key.length > 1 && key !== "Process" && key !== "Unidentified") return shiftKey ? `Shift+${key}` : key;
  if (key.length === 1 && key > " " && key <= "~") return key.toLowerCase();
  return /^Key[A-Z]$/.test(code) ? code.slice(3).toLowerCase() : /^(Digit|Numpad)\d$/.test(code) ? code.at(-1) : "";
}

// What a press means on the page as a whole; null where it belongs to the browser or to a control.
function actionOf(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) return null;
  const target = event.target instanceof Element ? event.target : document.body;
  if (target.closest("input, textarea, select, [contenteditable], dialog") || document.querySelector("dialog[open]")) return null;
  const name = nameOf(event);
  if (["Enter", "Space"].includes(name) && target.closest("button:not(.cell), a, summary")) return null;
  return byKey.get(name) ?? null;
}

addEventListener("keydown", (event) => {
  const action = actionOf(event);
  if (!action || !handlers[action]) return;
  event.preventDefault();
  handlers[action](event);
});

// The actions of the view that is shown: {action: function}.
export const listen = (actions) => {
  handlers = { ...actions, help: showHelp };
};

export const keysOf = (action) => bindings[action].map(shown).join(" ");

const ARROWS = { ArrowRight: "→", ArrowLeft: "←", ArrowUp: "↑", ArrowDown: "↓" };
const shown = (key) => key.split("+").map((part) => ARROWS[part] ?? (part === "Space" ? t("space") : part)).join("+");

// Gives an action a key, which other actions lose.
function bind(action, key) {
  for (const [other, keys] of Object.entries(bindings)) bindings[other] = keys.filter((old) => old !== key);
  bindings[action] = [key];
  save();
}

function save() {
  localStorage.setItem(PLACE, JSON.stringify(bindings));
  byKey = index();
  dispatchEvent(new Event("keys-changed"));
}

export function showHelp() {
  const rows = element("dl.keys");
  const draw = () => rows.replaceChildren(...Object.keys(DEFAULTS).flatMap((action) => {
    const change = button(keysOf(action) || "–", (event) => waitForKey(event.target, action), {
      "aria-label": `${t(`key-${action}`)}: ${keysOf(action)}. ${t("change-key")}`,
    });
    return [element("dt", {}, t(`key-${action}`)), element("dd", {}, change)];
  }));
  const waitForKey = (place, action) => {
    place.textContent = t("press-key");
    place.addEventListener("keydown", (event) => {
      event.preventDefault();
      event.stopPropagation();
      const name = nameOf(event);
      if (["Shift", "Control", "Alt", "Meta", "Tab", "Shift+Shift"].includes(name)) return;
      if (name && name !== "Escape" && !event.ctrlKey && !event.metaKey && !event.altKey) bind(action, name);
      draw();
    });
    place.addEventListener("blur", draw, { once: true });
  };
  draw();
  const reset = button(t("reset-keys"), () => {
    bindings = { ...DEFAULTS };
    save();
    draw();
  });
  ask(t("keys"), element("div", {}, element("p.hint", {}, t("keys-hint")), rows, reset), [["", t("close")]]);
}
