// Charts in SVG.

import { element, svg } from "./elements.js";

// Bars from 0 to 1. Square-root scale: most crops are near 0 or 1, and the few between them matter.
export function histogram(bins, threshold, text) {
  const [width, height] = [400, 60];
  const highest = Math.max(1, ...bins);
  const bars = bins.map((count, bin) => {
    const size = height * Math.sqrt(count / highest);
    return svg("rect", {
      x: bin * (width / bins.length) + 0.5, y: height - size, width: width / bins.length - 1, height: size,
      class: (bin + 0.5) / bins.length >= threshold ? "ok" : "ng",
    });
  });
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": text, class: "histogram" }, ...bars);
}

// One bar for each [name, count], with the highest number at the left.
export function columns(rows, title, format) {
  const highest = Math.max(1, ...rows.map(([, count]) => count));
  const bars = rows.map(([name, count]) => {
    const bar = element("span.bar", {}, element("span"));
    bar.firstChild.style.height = `${(100 * count) / highest}%`;
    return element("li", { title: `${name}: ${format(count)}`, "aria-label": `${name}: ${format(count)}` }, bar);
  });
  const ends = rows.length > 0 ? [rows[0][0], rows.at(-1)[0]] : ["", ""];
  return element("figure.columns", {}, element("figcaption", {}, element("h2", {}, title)),
    element("div.hint", {}, format(rows.length > 0 ? highest : 0)), element("ol", {}, bars),
    element("div.ends.hint", {}, element("span", {}, ends[0]), element("span", {}, ends[1])));
}
