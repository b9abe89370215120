/** The page of two runs. */
import { folded, inDigits, piece, scrubber, tableOf } from "./pieces.js";
import {
  addPart,
  classNamer,
  passportTerms,
  rangeText,
  sentence,
  termsOf,
  trainingCharts,
} from "./sections.js";

const compared = JSON.parse(document.querySelector("#page-data").textContent).compare;
const compareHalf = document.querySelector("#compare");
const LETTERS = ["A", "B"];

function signed(/** @type {number} */ value) {
  return `${value > 0 ? "+" : ""}${inDigits(value, 3)}`;
}

function showBoth() {
  const names = compared.runs.map(({ title, lineage }, n) => [
    LETTERS[n],
    `${title}${lineage.run_id ? ` (${lineage.run_id})` : ""}`,
  ]);
  addPart(compareHalf, "runs", "The runs", termsOf(names));
  const films = compared.runs.map(({ previews }, n) => ({ name: LETTERS[n], frames: previews }));
  addPart(compareHalf, "pictures", "Drawings by step", scrubber(films));
}

function showDifferences() {
  const why = compared.passports_differ;
  if (why.length) {
    addPart(
      compareHalf,
      "metrics",
      "Metrics: not compared",
      piece(
        "p",
        { class: "warning" },
        "The two runs were not measured alike, and a difference of their numbers would say nothing of the drawings.",
      ),
      tableOf(
        "What differs in their passports",
        ["what", ...LETTERS],
        why.map(([key, a, b]) => [key.replaceAll("_", " "), a, b]),
      ),
      piece(
        "p",
        {},
        "To compare them, evaluate both with one judge, one hold-out and the same params of evaluate. ",
        piece("code", {}, "cgan gate"),
        " does that for the champion and the generator at hand.",
      ),
    );
    return;
  }
  const rows = compared.metrics.map((metric) => [
    metric.name,
    inDigits(metric.a),
    inDigits(metric.b),
    signed(metric.change),
    rangeText(metric),
    metric.verdict,
    `${sentence(metric.meaning)} ${metric.better === "higher" ? "Higher" : "Lower"} is better.`,
  ]);
  const header = ["metric", ...LETTERS, "B less A", "95 % interval", "B is", "what it means"];
  addPart(
    compareHalf,
    "metrics",
    "Metrics",
    tableOf("Both runs, and the difference", header, rows),
    piece(
      "p",
      { class: "note" },
      "The interval says how far chance may have moved the difference: which latents were drawn, which images held out. " +
        "That of the Fréchet distance is the gate's: both runs with the same latents and images, resampled 200 times. The " +
        "others take the runs and, for precision, recall and coverage, the images for independent, which makes them rather " +
        "too wide (Newcombe 1998). No interval says what other seeds of the training would give.",
    ),
    folded("Accuracy by class", () => {
      const nameOf = classNamer(compared.runs[0].class_names);
      return tableOf(
        "Share of a class's drawings in which the judge sees it",
        ["class", ...LETTERS, "B less A", "95 % interval", "B is"],
        compared.classes.map((found) => [
          nameOf(found.label),
          inDigits(found.a),
          inDigits(found.b),
          signed(found.change),
          rangeText(found),
          found.verdict,
        ]),
      );
    }),
  );
}

function showCurves() {
  const runs = compared.runs.map(({ losses, probes }, n) => ({ name: LETTERS[n], losses, probes }));
  addPart(
    compareHalf,
    "curves",
    "Curves",
    piece("div", { class: "charts" }, ...trainingCharts(runs)),
  );
}

function showOrigins() {
  addPart(
    compareHalf,
    "params",
    "Params that differ",
    compared.params.length
      ? tableOf("In brackets: chosen for the data", ["param", ...LETTERS], compared.params)
      : piece("p", {}, "None."),
  );
  const facts = compared.runs.map(({ lineage, passport }) => ({
    "run": lineage.run_name,
    "MLflow run id": lineage.run_id,
    ...lineage.origin,
    "sha256 of the CSV": lineage.csv_sha256,
    "generator": passport.generator_digest,
  }));
  const keys = [...new Set(facts.flatMap(Object.keys))];
  addPart(
    compareHalf,
    "lineage",
    "Where they come from",
    tableOf(
      "Lineage",
      ["", ...LETTERS],
      keys.map((key) => [key, ...facts.map((found) => found[key] ?? "–")]),
    ),
    ...compared.runs.map(({ passport }, n) =>
      folded(`Passport of ${LETTERS[n]}`, () => passportTerms(passport))
    ),
  );
}

showBoth();
showDifferences();
showCurves();
showOrigins();
