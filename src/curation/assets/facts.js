// What is known of a face, as a list of names and numbers.

import { facePath } from "./address.js";
import { element, link, svg } from "./elements.js";
import { count, degrees, measure, moment, percent, probability, t } from "./texts.js";

const FACTS = [
  ["p-ok", ({ p_ok }) => probability(p_ok)],
  ["size", ({ size }) => `${count(size)} px`],
  ["blur", ({ blur }) => measure(blur)],
  ["exposure", ({ exposure }) => measure(exposure)],
  ["score", ({ score }) => measure(score)],
  ["angle", ({ angle }) => degrees(angle)],
  ["mirrored", ({ mirrored }) => percent(mirrored)],
  ["mirrored-head", ({ mirrored_head }) => percent(mirrored_head)],
];
// On the page of a face only.
const QUALITY = ["face_blur", "contrast", "saturation", "jpeg_quality", "yaw", "pitch", "eyes_open", "mouth_open", "outlier"]
  .map((name) => [name, ({ quality }) => measure(quality?.[name])]);

export const words = (judgement, reason) =>
  judgement === "ng" && reason ? `${t("ng")} (${t(reason)})` : t(judgement ?? "unjudged");

// A list whose texts change with the face: {list, show(face)}.
export function facts() {
  const values = FACTS.map(() => element("dd"));
  const photo = element("a");
  const verdicts = element("dd");
  const others = element("span.badge");
  const list = element("dl.facts", {}, FACTS.flatMap(([name], index) => [element("dt", {}, t(name)), values[index]]),
    element("dt", {}, t("details")), element("dd", {}, photo, " ", others), element("dt", {}, t("verdict")), verdicts);
  return {
    list,
    show(face) {
      FACTS.forEach(([, text], index) => { values[index].textContent = text(face); });
      photo.href = facePath(face.photo_id);
      photo.textContent = t("photo", { id: face.photo_id });
      others.textContent = related(face);
      verdicts.textContent = (face.verdicts ?? [])
        .map(({ by, judgement, reason, at }) => `${words(judgement, reason)}, ${by}, ${moment(at)}`).join("; ") || "–";
    },
  };
}

export const factRows = (face) =>
  [...FACTS, ...QUALITY].flatMap(([name, text]) => [element("dt", {}, t(name)), element("dd", {}, text(face))]);

// How many faces of the run show the same.
export const related = ({ copies, near_duplicates }) =>
  [copies > 1 ? t("copies", { n: copies }) : "", near_duplicates > 0 ? t("near-duplicates-of", { n: near_duplicates }) : ""]
    .filter(Boolean).join(", ");

export const nameOf = ({ label, photo_id }) => label ?? t("photo", { id: photo_id });

export const describe = (face) =>
  [t("picture-of", { label: face.label ?? t("no-label"), id: face.photo_id, status: t(face.status), p: probability(face.p_ok) }), related(face)]
    .filter(Boolean).join(", ");

// 68 points over a picture of `size` pixels.
export function landmarks(face, size) {
  const d = face.landmarks.map(([x, y]) => `M${x + 0.5} ${y + 0.5}h0`).join("");
  return svg("svg", { viewBox: `0 0 ${size} ${size}`, class: "landmarks", "aria-hidden": "true" },
    svg("path", { d, "stroke-width": size / 90 }));
}

// The original with the square of the crop in it.
export function original({ original: { picture, width, height }, square: { centre, side, angle } }, text) {
  const [sin, cos] = [Math.sin((angle * Math.PI) / 180), Math.cos((angle * Math.PI) / 180)];
  const corner = ([x, y]) => [centre[0] + 0.5 + (side / 2) * (cos * x - sin * y), centre[1] + 0.5 + (side / 2) * (sin * x + cos * y)];
  const points = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map((at) => corner(at).join(",")).join(" ");
  const image = element("img", { src: picture, width, height, alt: text });
  return element("div.original", {}, image,
    svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, svg("polygon", { points })));
}
