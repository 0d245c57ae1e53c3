// Pictures that are decoded ahead, at the size at which they are shown, so that a key draws from memory.

import { backOff, wait } from "./api.js";

// Requests at the same time: two connections of the browser's six stay free for verdicts.
const AT_ONCE = 4;
const SIZES = [256, 512, 1024];

// The URL of a crop for so many pixels on the screen.
export function address({ picture, size }, pixels) {
  const enough = SIZES.find((candidate) => candidate >= pixels && candidate < size);
  return enough ? `${picture}?size=${enough}` : picture;
}

export class Pictures extends EventTarget {
  #bitmaps = new Map(); // by crop
  #loading = new Map();
  #failures = new Map();
  #wanted = [];
  #warmed = new Set();
  #warm = [];
  #pixels = 0;

  // The entries to decode and those to have in the browser's cache, most urgent first.
  want(entries, later, pixels) {
    if (pixels !== this.#pixels) {
      this.#drop(new Set(), new Set());
      this.#warmed.clear();
    }
    this.#pixels = pixels;
    this.#wanted = entries;
    this.#warm = later.filter(({ crop }) => !this.#warmed.has(crop));
    const crops = new Set(entries.map(({ crop }) => crop));
    this.#drop(crops, new Set([...crops, ...later.map(({ crop }) => crop)]));
    this.#fill();
  }

  get({ crop }) {
    return this.#bitmaps.get(crop) ?? null;
  }

  hasFailed({ crop }) {
    return this.#failures.has(crop);
  }

  close() {
    this.want([], [], 0);
  }

  #drop(wanted, near) {
    for (const [crop, bitmap] of this.#bitmaps) {
      if (wanted.has(crop)) continue;
      bitmap.close();
      this.#bitmaps.delete(crop);
    }
    for (const [crop, stop] of this.#loading) if (!near.has(crop)) stop.abort();
    for (const crop of this.#failures.keys()) if (!wanted.has(crop)) this.#failures.delete(crop);
  }

  #fill() {
    for (const entry of this.#wanted) {
      if (this.#loading.size >= AT_ONCE) return;
      if (!this.#bitmaps.has(entry.crop) && !this.#loading.has(entry.crop)) this.#load(entry);
    }
    for (const entry of this.#warm) {
      if (this.#loading.size >= AT_ONCE) return;
      if (!this.#warmed.has(entry.crop) && !this.#loading.has(entry.crop)) this.#fetch(entry);
    }
  }

  async #load(entry) {
    const { crop } = entry;
    const stop = new AbortController();
    this.#loading.set(crop, stop);
    const pixels = this.#pixels;
    try {
      const response = await fetch(address(entry, pixels), { signal: stop.signal });
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      const side = Math.min(pixels, entry.size);
      const options = { resizeWidth: side, resizeHeight: side, resizeQuality: "medium" };
      const bitmap = await createImageBitmap(await response.blob(), options);
      if (stop.signal.aborted || pixels !== this.#pixels) bitmap.close();
      else {
        this.#bitmaps.set(crop, bitmap);
        this.#failures.delete(crop);
        this.#note(crop);
        this.dispatchEvent(new CustomEvent("ready", { detail: crop }));
      }
    } catch {
      if (!stop.signal.aborted) {
        const failures = (this.#failures.get(crop) ?? 0) + 1;
        this.#failures.set(crop, failures);
        this.dispatchEvent(new CustomEvent("ready", { detail: crop }));
        await wait(backOff(failures, null, 4000), stop.signal);
      }
    }
    if (this.#loading.get(crop) === stop) this.#loading.delete(crop);
    this.#fill();
  }

  // Fills the browser's cache, from which the picture is decoded when its turn comes.
  async #fetch(entry) {
    const stop = new AbortController();
    this.#loading.set(entry.crop, stop);
    this.#note(entry.crop);
    try {
      const response = await fetch(address(entry, this.#pixels), { signal: stop.signal, priority: "low" });
      await response.arrayBuffer();
    } catch {
      // It is fetched again when it is wanted.
    }
    if (this.#loading.get(entry.crop) === stop) this.#loading.delete(entry.crop);
    this.#fill();
  }

  #note(crop) {
    this.#warmed.add(crop);
    if (this.#warmed.size > 1000) this.#warmed.delete(this.#warmed.values().next().value);
  }
}
