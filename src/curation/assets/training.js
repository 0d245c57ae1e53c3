// Training: starts one, shows how far it is, and its figures beside those of the classifier in use.

import { get, isTemporary, post, wait } from "./api.js";
import { ask, button, element, table } from "./elements.js";
import { say } from "./notices.js";
import { count, moment, percent, t } from "./texts.js";

// Milliseconds between two looks at a training.
const LOOK = 1000;

export class TrainingDialog {
  #context;
  #place = element("div.training", { "aria-live": "polite" });
  #isOpen = false;
  #isWatching = false;

  constructor(context) {
    this.#context = context;
  }

  async open() {
    if (this.#isOpen || !this.#context.canJudge) return;
    this.#isOpen = true;
    this.#place.replaceChildren(element("p", {}, t("loading")));
    this.#watch();
    await ask(t("train-title"), this.#place, [["", t("close")]]);
    this.#isOpen = false;
  }

  // Looks at the training until it has ended, also while the dialog is closed.
  async #watch() {
    if (this.#isWatching) return;
    this.#isWatching = true;
    let wasRunning = false;
    for (;;) {
      try {
        const training = await get("/api/training");
        this.#show(training);
        if (training.state !== "running") {
          if (wasRunning && !this.#isOpen) say(t("train-over"), button(t("details"), () => this.open()));
          break;
        }
        wasRunning = true;
      } catch (error) {
        if (!isTemporary(error)) {
          this.#fail(error);
          break;
        }
      }
      await wait(LOOK);
    }
    this.#isWatching = false;
  }

  async #start() {
    try {
      this.#show(await post("/api/training", {}));
    } catch (error) {
      // Somebody else was faster.
      if (error.code !== "training") return this.#fail(error);
    }
    this.#watch();
  }

  #fail(error) {
    this.#place.replaceChildren(element("p", { role: "alert" }, t("error", { message: error.message })), this.#starter("train-now"));
  }

  #starter(name) {
    return button(t(name), () => this.#start(), { className: "start-training" });
  }

  #show(training) {
    this.#place.dataset.state = training.state;
    const about = element("p", {}, t("train-about"));
    if (training.state === "idle") this.#place.replaceChildren(about, this.#starter("train-now"));
    else if (training.state === "running") this.#place.replaceChildren(...running(training));
    else if (training.state === "failed") {
      this.#place.replaceChildren(about, element("p", { role: "alert" }, t("train-failed", { message: training.message })), this.#starter("train-again"));
    } else this.#place.replaceChildren(...figures(training.training), this.#starter("train-again"));
  }
}

function running({ by, at, progress }) {
  const text = progress ? t(`train-${progress.step}`, progress) : t("train-reading");
  return [element("p", {}, t("train-running", { by, time: moment(at) })),
    element("progress", progress ? { max: Math.max(progress.of, 1), value: progress.done, "aria-label": text } : { "aria-label": text }),
    element("p", {}, text)];
}

function figures({ model, sha256, report, chosen_by_p_ok }) {
  const row = (name, of) => [name, ...[of.accuracy, of.precision, of.recall, of.auc].map(percent)];
  const rows = [row(t("train-this"), report.model), row(t("train-grid"), report.grid)];
  const { comparison } = report;
  if (comparison) {
    rows.push(row(t("train-current", { model: comparison.model }), comparison.before));
    rows.push(row(t("train-same", { n: comparison.crops }), comparison.now));
  }
  const columns = [t("train-classifier"), t("accuracy"), t("precision-figure"), t("recall-figure"), t("area")];
  const start = sha256.slice(0, 8);
  return [element("p", {}, t("train-done", { model, training: count(report.training.crops), test: count(report.test.crops) })),
    table(t("train-figures"), columns, rows),
    report.measured_on === "test-part" ? null : element("p", { role: "alert" }, t("train-folds")),
    chosen_by_p_ok ? element("p", {}, t("train-chosen", { n: count(chosen_by_p_ok) })) : null,
    report.beats_grid ? null : element("p", { role: "alert" }, t("train-weak")),
    report.precision_reached ? null : element("p", { role: "alert" }, t("train-no-threshold")),
    element("p", {}, t("train-use")),
    element("pre", {}, `facemill rescore --model ${start}\nfacemill models use ${start}`)].filter((part) => part !== null);
}
