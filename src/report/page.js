"use strict";
(() => {
  const PER_PAGE = 60;
  // The fields of a face: [[photo, file, original, label], [pOk, size, angle, score], [mirrored, mirroredHead, blur, exposure]].
  const faces = JSON.parse(document.getElementById("faces").textContent).map(
    ([[photo, file, original, label], ...numbers]) => {
      // JSON has no NaN: a number that could not be measured is null.
      const [pOk, size, angle, score, mirrored, mirroredHead, blur, exposure] = numbers.flat().map((n) => n ?? NaN);
      return { photo, file, original, label: label ?? "", pOk, size, angle, score, mirrored, mirroredHead, blur, exposure };
    }
  );
  const by = (id) => document.getElementById(id);
  if (faces.length === 0) {
    by("empty").hidden = false;
    return;
  }
  by("browser").hidden = false;

  const whole = new Intl.NumberFormat("en");
  // Not "-0.0".
  const degrees = (angle) => angle.toFixed(1).replace(/^-0\.0$/, "0.0");
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const orders = {
    // Crops without a P(OK) come last.
    best: (a, b) => (b.pOk >= 0 ? b.pOk : -1) - (a.pOk >= 0 ? a.pOk : -1),
    worst: (a, b) => (a.pOk >= 0 ? a.pOk : 2) - (b.pOk >= 0 ? b.pOk : 2),
    size: (a, b) => b.size - a.size,
    mirrored: (a, b) => b.mirrored - a.mirrored,
    tilt: (a, b) => Math.abs(b.angle) - Math.abs(a.angle),
    blur: (a, b) => a.blur - b.blur,
    id: () => 0, // The faces are already in order of photo id.
  };
  // Whether the page lies beside the crops and originals, and whether it has small copies of the crops.
  const linked = by("browser").dataset.linked === "true";
  const thumbnails = by("browser").dataset.thumbnails === "true";
  const thumbnailOf = (file) => file.replace(/^.*\/([^/.]*)\.[^.]*$/, "thumbnails/$1.jpg");
  let threshold = Number(by("browser").dataset.threshold);
  let shown = [];
  let page = 1;

  // The crop's P(OK) is NaN if the run's classifier has not scored it.
  const verdictOf = (face) => (Number.isNaN(face.pOk) ? "unscored" : face.pOk >= threshold ? "ok" : "ng");
  const pageCount = () => Math.max(1, Math.ceil(shown.length / PER_PAGE));

  function choose() {
    const verdict = by("verdict").value;
    const least = Number(by("size").value);
    const words = by("name").value.trim().toLowerCase();
    shown = faces.filter(
      (face) =>
        face.size >= least &&
        (verdict === "all" || verdictOf(face) === verdict) &&
        (words === "" || String(face.photo) === words || face.label.toLowerCase().includes(words))
    );
    shown.sort(orders[by("order").value]);
    page = 1;
    show();
  }

  function show() {
    const ok = faces.reduce((count, face) => count + (verdictOf(face) === "ok"), 0);
    by("threshold-value").textContent = String(Number(threshold.toFixed(4)));
    const kept = `${whole.format(ok)} of ${whole.format(faces.length)} crops are OK at this threshold (${percent(ok / faces.length)})`;
    const matching = shown.length === faces.length ? "" : ` · ${whole.format(shown.length)} match the filters`;
    by("summary").textContent = kept + matching;
    by("cards").replaceChildren(...shown.slice((page - 1) * PER_PAGE, page * PER_PAGE).map(card));
    by("page").value = page;
    by("page").max = pageCount();
    by("page-count").textContent = whole.format(pageCount());
    by("previous").disabled = page <= 1;
    by("next").disabled = page >= pageCount();
    by("pages").hidden = pageCount() === 1;
    histogram();
  }

  function element(name, className, ...content) {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...content);
    return made;
  }

  function link(href, ...content) {
    const made = element("a", "", ...content);
    made.href = href;
    return made;
  }

  function card(face) {
    const verdict = verdictOf(face);
    const name = { ok: "OK", ng: "NG", unscored: "not scored" }[verdict];
    const pOk = Number.isNaN(face.pOk) ? "–" : face.pOk.toFixed(3);
    const picture = element("img");
    picture.loading = "lazy";
    picture.decoding = "async";
    picture.width = picture.height = face.size;
    picture.alt = `${face.label || "a face"}, photo ${face.photo}`;
    picture.src = thumbnails ? thumbnailOf(face.file) : face.file;
    const shown = linked || thumbnails ? [link(linked ? face.file : picture.src, picture)] : [];

    const score = element("div", "score", element("span", "", pOk), element("span", verdict, name));
    score.title = "P(OK): probability that a person keeps this crop for its geometry; look at blur, exposure and face score, too";
    const label = element("div", "label", face.label || "–");
    label.title = face.label;
    const numbers = element("dl");
    for (const [name, value] of [
      ["size", `${face.size} px`],
      ["angle", `${degrees(face.angle)}°`],
      ["face score", face.score.toFixed(2)],
      ["mirrored", percent(face.mirrored)],
      ["mirrored in head", percent(face.mirroredHead)],
      ["blur", String(Number(face.blur.toPrecision(3)))],
      ["exposure", String(Number(face.exposure.toPrecision(3)))],
    ]) {
      numbers.append(element("dt", "", name), element("dd", "", value));
    }
    const photo = element("span", "", `photo ${face.photo}`);
    photo.title = photo.textContent;
    const links = element("div", "links", photo, ...(linked ? [link(face.original, "original")] : []));
    return element("li", "", ...shown, element("div", "facts", score, label, numbers, links));
  }

  const bins = JSON.parse(by("browser").dataset.histogram);
  const BINS = bins.length;
  const highest = Math.max(1, ...bins);

  function histogram() {
    const bars = bins.map((count, bin) => {
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      // Square-root scale: most crops are near 0 or 1, and the few between them show where to set the threshold.
      const height = 60 * Math.sqrt(count / highest);
      bar.setAttribute("x", bin * (400 / BINS) + 0.5);
      bar.setAttribute("y", 60 - height);
      bar.setAttribute("width", 400 / BINS - 1);
      bar.setAttribute("height", height);
      bar.setAttribute("class", (bin + 0.5) / BINS >= threshold ? "ok" : "ng");
      return bar;
    });
    by("histogram").replaceChildren(...bars);
  }

  function turnTo(number) {
    page = Math.min(pageCount(), Math.max(1, Math.trunc(number) || 1));
    show();
    by("filters").scrollIntoView({ block: "start" });
  }

  // Dragging fires many events; the cards are drawn once per frame at most.
  let due = 0;
  const soon = () => {
    cancelAnimationFrame(due);
    due = requestAnimationFrame(choose);
  };
  by("threshold").value = threshold;
  by("threshold").addEventListener("input", (event) => {
    threshold = Number(event.target.value);
    soon();
  });
  for (const id of ["verdict", "size", "order"]) by(id).addEventListener("change", choose);
  by("name").addEventListener("input", soon);
  by("filters").addEventListener("submit", (event) => event.preventDefault());
  by("previous").addEventListener("click", () => turnTo(page - 1));
  by("next").addEventListener("click", () => turnTo(page + 1));
  by("page").addEventListener("change", (event) => turnTo(Number(event.target.value)));
  choose();
})();
