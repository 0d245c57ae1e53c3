// Texts in the person's language.

import { english } from "./texts_en.js";
import { japanese } from "./texts_ja.js";

export const LANGUAGES = { en: "English", ja: "日本語" };
const PLACE = "facemill-language";

const preferred = localStorage.getItem(PLACE) ?? navigator.languages.find((name) => /^(en|ja)\b/.test(name))?.slice(0, 2);
export const language = preferred in LANGUAGES ? preferred : "en";
const texts = language === "ja" ? japanese : english;
document.documentElement.lang = language;

export function useLanguage(name) {
  localStorage.setItem(PLACE, name);
  location.reload();
}

// The text with `{name}` replaced by values. Numbers are grouped.
export function t(name, values = {}) {
  const text = texts[name] ?? english[name] ?? name;
  return text.replace(/\{(\w+)\}/g, (_, key) => (typeof values[key] === "number" ? count(values[key]) : String(values[key] ?? "")));
}

const whole = new Intl.NumberFormat(language);
const fine = new Intl.NumberFormat(language, { minimumFractionDigits: 3, maximumFractionDigits: 3 });
const percents = new Intl.NumberFormat(language, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const three = new Intl.NumberFormat(language, { maximumSignificantDigits: 3 });
const moments = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });

export const count = (number) => whole.format(number);
export const probability = (number) => (number === null || number === undefined ? "–" : fine.format(number));
export const percent = (number) => (number === null || number === undefined ? "–" : percents.format(number));
export const measure = (number) => (number === null || number === undefined ? "–" : three.format(number));
export const moment = (milliseconds) => moments.format(milliseconds);
// Not "-0.0".
export const degrees = (number) => (number === null || number === undefined ? "–" : `${number.toFixed(1).replace(/^-0\.0$/, "0.0")}°`);
