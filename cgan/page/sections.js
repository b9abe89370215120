/** Parts that the page of a run shares with the pages of two runs and of labels. */
import { lineChart } from "./charts.js";
import { inDigits, piece, tableOf, TileSheet } from "./pieces.js";

/** The names of a run's classes: their numbers where it has none. */
export function classNamer(/** @type {string[] | null | undefined} */ names) {
  return (/** @type {number} */ label) =>
    names?.[label] === undefined || names[label] === null ? String(label) : String(names[label]);
}

/**
 * A part of a page, which its navigation leads to.
 * @param {Element} half
 * @param {string} id
 * @param {string} title
 * @param {...(Node | string | null)} children
 */
export function addPart(half, id, title, ...children) {
  const part = piece(
    "section",
    { class: "part", id, "aria-label": title },
    piece("h2", {}, title),
    ...children,
  );
  half.append(part);
  half.querySelector("nav")?.append(piece("a", { href: `#${id}` }, title));
  return part;
}

/** @param {string} text @returns {string} a sentence: a capital first, a full stop last */
export function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

/** @param {{low: number | null, high: number | null}} found */
export function rangeText({ low, high }) {
  return low === null || high === null || low === undefined
    ? "–"
    : `${inDigits(low)} to ${inDigits(high)}`;
}

/** What a page says in a list of terms. @param {[string, Node | string | null | undefined][]} pairs */
export function termsOf(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return piece(
    "dl",
    {},
    ...known.flatMap(([term, value]) => [piece("dt", {}, term), piece("dd", {}, value)]),
  );
}

/**
 * The charts of a training, of one run or of several over each other.
 * @param {{name: string, losses: Curve, probes: Curve}[]} runs
 * @typedef {{columns: string[], rows: number[][]}} Curve
 */
export function trainingCharts(runs) {
  const charts = [
    [
      "losses",
      "Losses",
      "Of discriminator and generator, means over the steps between two records.",
      "loss",
      [
        ["loss/discriminator", "discriminator"],
        ["loss/generator", "generator"],
      ],
    ],
    [
      "losses",
      "Logits",
      "What the discriminator says: above 0 it takes an image for real.",
      "logit",
      [
        ["logits/real_mean", "real images"],
        ["logits/fake_mean", "drawings"],
      ],
    ],
    [
      "losses",
      "Told apart",
      "Shares of real images and of drawings that the discriminator knows as such.",
      "share",
      [
        ["accuracy/discriminator_real", "real images"],
        ["accuracy/discriminator_fake", "drawings"],
      ],
    ],
    [
      "probes",
      "Probes: accuracy and variety",
      "1,000 drawings in the judge's eyes, during the training.",
      "share",
      [
        ["probe/conditional_accuracy", "shows the class asked for"],
        ["probe/diversity_mean", "variety, real images have 1"],
        ["probe/diversity_worst_class", "variety of the worst class"],
      ],
    ],
    [
      "probes",
      "Probes: distance",
      "Fréchet distance of 1,000 drawings from training images.",
      "distance",
      [
        ["probe/fid_judge", "Fréchet distance"],
      ],
    ],
  ];
  return charts.map(([where, title, description, unit, columns]) => {
    const found = runs.flatMap((run) =>
      columns.map(([column, name]) => ({
        name: run.name ? `${name} · ${run.name}` : name,
        values: new Map(columnOf(run[where], column)),
      }))
    ).filter(({ values }) => values.size);
    if (!found.length) return null;
    const steps = [...new Set(found.flatMap(({ values }) => [...values.keys()]))].sort((a, b) =>
      a - b
    );
    const rows = steps.map((
      step,
    ) => [step, ...found.map(({ values }) => values.get(step) ?? null)]);
    return lineChart({ title, description, unit, series: found.map(({ name }) => name), rows });
  });
}

/** @param {Curve} curve @returns {[number, number][]} step and value */
function columnOf(curve, column) {
  const at = curve.columns.indexOf(column);
  const step = curve.columns.indexOf("step");
  const pairs = at < 0 ? [] : curve.rows.map((row) => [row[step], row[at]]);
  return pairs.filter((pair) => !pair.includes(null)); // null: what was written was no number
}

/** What every number of an evaluation depends on. @param {Record<string, unknown>} passport */
export function passportTerms(passport) {
  const words = Object.entries(passport).map(([key, value]) => [
    key.replaceAll("_", " "),
    typeof value === "number" ? inDigits(value) : String(value),
  ]);
  return termsOf(words);
}

/**
 * Rows of a CSV with their pictures. @param {string} caption
 * @param {{sheet?: object, rows: {row: number, line: number, label: number}[]}} found
 * @param {(label: number) => string} named
 * @param {[string, (row: object) => Node | string | number][]} more columns
 */
export function rowsTable(caption, found, named, more) {
  const sheet = found.sheet && new TileSheet(found.sheet);
  const header = [
    "line",
    ...(sheet ? ["image"] : []),
    "label",
    ...more.map(([name]) => name),
    "row",
  ];
  const rows = found.rows.map((row, n) => [
    row.line,
    ...(sheet ? [sheet.tile(n, `The image of line ${row.line}`, 44)] : []),
    named(row.label),
    ...more.map(([, cell]) => cell(row)),
    row.row,
  ]);
  return tableOf(caption, header, rows);
}
