/** The second half of a run's page: what became of the training, and why one may believe it. */
import { barChart, matrixChart } from "./charts.js";
import { folded, inDigits, piece, scrubber, tableOf, TileSheet } from "./pieces.js";
import {
  addPart,
  classNamer,
  passportTerms,
  rangeText,
  rowsTable,
  sentence,
  termsOf,
  trainingCharts,
} from "./sections.js";

const BARS = 60;
const believed = JSON.parse(document.querySelector("#page-data").textContent).run;
const believeHalf = document.querySelector("#believe");
const nameOf = classNamer(believed.class_names);

function showMetrics() {
  const rows = believed.metrics.map((metric) => [
    metric.name,
    inDigits(metric.value),
    rangeText(metric),
    inDigits(metric.floor),
    `${sentence(metric.meaning)} ${metric.better === "higher" ? "Higher" : "Lower"} is better.`,
  ]);
  const header = ["metric", "drawings", "95 % interval", "real images", "what it means"];
  addPart(
    believeHalf,
    "metrics",
    "Metrics",
    tableOf("The drawings, and what real images get in their place", header, rows),
    piece(
      "p",
      { class: "note" },
      "An interval says how far chance may have moved the number: which latents were drawn, which images were " +
        "held out. It does not say what another seed of the training would give. For precision, " +
        "recall and coverage, images are taken as independent. – : none is known.",
    ),
    folded("Passport: what these numbers depend on", () => passportTerms(believed.passport)),
  );
}

function showTraining() {
  addPart(
    believeHalf,
    "training",
    "The training",
    piece(
      "p",
      {},
      "The same latents and classes, drawn again and again while the generator learnt.",
    ),
    scrubber([{ name: "", frames: believed.previews }]),
    piece("div", { class: "charts" }, ...trainingCharts([{ name: "", ...believed }])),
    piece(
      "p",
      { class: "note" },
      "Hover over a chart, or tap, for its values. Drag to move; hold Ctrl and turn the wheel to zoom, or use the buttons.",
    ),
  );
}

function showClasses() {
  const { classes, confusion, data } = believed;
  const rows = () =>
    classes.map((found) => [
      nameOf(found.label),
      found.accuracy === null ? "–" : `${inDigits(100 * found.accuracy)} %`,
      found.low === null ? "–" : `${inDigits(100 * found.low)} – ${inDigits(100 * found.high)} %`,
      inDigits(found.distance),
      inDigits(found.different, 3),
      inDigits(data.counts[found.label]),
    ]);
  const header = [
    "class",
    "accuracy",
    "95 % interval",
    "Fréchet distance",
    "different drawings",
    "images in the data",
  ];
  const measured = classes.filter(({ accuracy }) => accuracy !== null);
  const worst = [...measured].sort((a, b) => a.accuracy - b.accuracy);
  const many = classes.length > BARS;
  const shown = many ? worst.slice(0, BARS) : measured;
  const table = () => tableOf("Accuracy and distance of each class", header, rows());
  const some = many ? ` The ${BARS} worst of ${inDigits(classes.length)} classes.` : "";
  const charts = [
    barChart({
      title: "Accuracy by class",
      description:
        `Share of the drawings of a class in which the judge sees it, with 95 % intervals.${some}`,
      unit: "accuracy",
      zero: false,
      bars: shown.map((found) => ({
        name: nameOf(found.label),
        value: found.accuracy,
        low: found.low,
        high: found.high,
      })),
      table,
    }),
  ];
  const known = shown.filter(({ distance }) => distance !== null);
  if (known.length) {
    charts.push(barChart({
      title: "Distance by class",
      description: `Fréchet distance of a class's drawings from its held-out images.${some}`,
      unit: "distance",
      bars: known.map((found) => ({ name: nameOf(found.label), value: found.distance })),
      table,
    }));
  }
  const names = classes.map(({ label }) => nameOf(label));
  const mistakes = () =>
    tableOf(
      "The most frequent mistakes",
      ["asked for", "the judge sees", "drawings"],
      confusion.mistakes.map(([asked, seen, count]) => [nameOf(asked), nameOf(seen), count]),
    );
  if (confusion.matrix) {
    charts.push(matrixChart({
      title: "Confusion",
      description: "How many drawings of a class the judge takes for which. Mistakes are coloured.",
      names,
      matrix: confusion.matrix,
    }));
  }
  addPart(
    believeHalf,
    "classes",
    "Class by class",
    piece("div", { class: "charts" }, ...charts),
    folded("The most frequent mistakes", mistakes),
  );
}

function drawnCards(found) {
  const [sheet, near] = [new TileSheet(found.sheet), new TileSheet(found.near_sheet)];
  let shown = 0;
  return piece(
    "ul",
    { class: "cards" },
    ...found.asked.map((asked, n) => {
      const seen = found.seen[n] === asked ? "" : `, seen as ${nameOf(found.seen[n])}`;
      const words = `${nameOf(asked)}${seen}`;
      return piece(
        "li",
        {},
        sheet.tile(n, `A drawing of ${nameOf(asked)}`, 72),
        piece(
          "p",
          {},
          words,
          piece("br"),
          piece("small", {}, `${inDigits(100 * found.probability[n], 3)} % sure`),
        ),
        piece(
          "div",
          { class: "near" },
          ...found.near[n].map((other) =>
            piece(
              "figure",
              { title: `line ${other.line}, ${nameOf(other.label)}` },
              near.tile(
                shown++,
                `Training image of line ${other.line}, labelled ${nameOf(other.label)}`,
                40,
              ),
              piece("figcaption", {}, `${inDigits(100 * other.distance, 2)} %`),
            )
          ),
        ),
      );
    }),
  );
}

function showDrawings() {
  const { drawn } = believed;
  addPart(
    believeHalf,
    "drawings",
    "Drawings, not chosen by hand",
    piece(
      "p",
      {},
      `Out of ${
        inDigits(drawn.drawings)
      } drawings (seed ${drawn.seed}). Beside each are the training images of its class that it is ` +
        "nearest to, however they are moved by a pixel or two or made brighter, with the part of its contrast by " +
        "which it differs. Is it a copy? Real images that the generator never saw differ by " +
        `${
          inDigits(100 * believed.usual_distance, 2)
        } % from their nearest training image, in the median. A ` +
        "copy would be far below that.",
    ),
    piece("h3", {}, "Chosen at random"),
    drawnCards(drawn.random),
    piece("h3", {}, "The worst, as the judge sees them"),
    drawnCards(drawn.worst),
  );
}

function showData() {
  const { data } = believed;
  const { shape } = data;
  const means = new TileSheet(data.means);
  const few = data.counts.length <= BARS;
  const counts = data.counts.map((value, label) => ({ name: nameOf(label), value }));
  const ordered = few ? counts : [...counts].sort((a, b) => a.value - b.value).slice(0, BARS);
  const table = () =>
    tableOf(
      "Images per class",
      ["class", "images"],
      counts.map(({ name, value }) => [name, value]),
    );
  const listed = (found, caption, more = []) =>
    found.count
      ? folded(`${caption}: ${inDigits(found.count)}`, () =>
        piece(
          "div",
          {},
          rowsTable(caption, found, nameOf, more),
          found.rows.length < found.count
            ? piece("p", { class: "note" }, `The first ${found.rows.length} of them.`)
            : null,
        ))
      : piece("p", {}, `${caption}: none`);
  const first = [
    ["repeats line", (row) => row.first.line],
    ["labelled there", (row) => nameOf(row.first.label)],
  ];
  addPart(
    believeHalf,
    "data",
    "The data",
    piece(
      "p",
      {},
      `${inDigits(data.rows)} images of ${shape.width} × ${shape.height} pixels${
        shape.channels === 3 ? " in colour" : ""
      }: ` +
        `${inDigits(data.training)} for training, ${inDigits(data.heldout)} held out.`,
    ),
    ...data.warnings.map((text) => piece("p", { class: "warning" }, `Warning: ${text}`)),
    piece(
      "div",
      { class: "charts" },
      barChart({
        title: "Images per class",
        description: few
          ? "As counted in the CSV."
          : `The ${BARS} smallest of ${counts.length} classes.`,
        unit: "images",
        bars: ordered,
        table,
      }),
    ),
    piece("h3", {}, "The mean image of each class"),
    piece(
      "div",
      { class: "tiles" },
      ...Array.from({ length: data.means.count }, (_, label) =>
        piece(
          "figure",
          {},
          means.tile(label, `Mean image of ${nameOf(label)}`),
          piece("figcaption", {}, nameOf(label)),
        )),
    ),
    listed(data.one_colour, "Images of one colour all over"),
    listed(data.double, "Images that repeat an earlier one", first),
    listed(data.conflicts, "Images that repeat one of another class", first),
  );
}

function showSuspects() {
  const { suspects } = believed.data;
  const columns = [
    ["the judge sees", (row) => nameOf(row.suggested)],
    ["by a margin of", (row) => inDigits(row.confidence, 3)],
    ["part", (row) => (row.heldout ? "held out" : "training")],
  ];
  addPart(
    believeHalf,
    "labels",
    "Labels that look wrong",
    piece(
      "p",
      {},
      `Of ${inDigits(suspects.looked_at)} rows, the judge sees another class than the label in ` +
        `${
          inDigits(suspects.count)
        }, the most doubtful first. Some of them are right, and only hard to read. It never ` +
        "saw the held-out rows. Of the training rows it has seen the labels, and may have learnt a wrong one. ",
      piece("code", {}, "cgan label-errors"),
      " asks judges that have not seen the row: it takes minutes, and its list has fewer right labels in it.",
    ),
    suspects.count
      ? rowsTable(
        "Lines are those of data/raw/train.csv; the header is line 1",
        suspects,
        nameOf,
        columns,
      )
      : piece("p", {}, "None."),
    suspects.rows.length < suspects.count
      ? piece("p", { class: "note" }, `The first ${suspects.rows.length}.`)
      : null,
  );
}

function showParams() {
  const { preset, rows } = believed.params;
  const shown = (value) => typeof value === "object" ? JSON.stringify(value) : String(value);
  const changed = rows.filter((row) => "preset" in row);
  const header = ["param", "value", "chosen for the data", `preset ${preset}`];
  const cells = (row) => [
    row.key,
    shown(row.value),
    "chosen" in row ? shown(row.chosen) : "",
    "preset" in row ? shown(row.preset) : "",
  ];
  addPart(
    believeHalf,
    "params",
    "Params",
    changed.length
      ? tableOf(`What differs from the preset ${preset}`, header, changed.map(cells))
      : piece("p", {}, preset ? `The training has the params of the preset ${preset}.` : ""),
    folded("All params", () => tableOf("params.yaml", header, rows.map(cells))),
  );
}

function showLineage() {
  const { lineage } = believed;
  const { origin } = lineage;
  const code = (text) => text ? piece("code", {}, text) : null;
  const known = { commit: "commit", dirty: "", data: "data" };
  addPart(
    believeHalf,
    "lineage",
    "Where it comes from",
    termsOf([
      ["run", lineage.run_name],
      ["MLflow run id", code(lineage.run_id)],
      ["MLflow experiment", lineage.experiment],
      ["commit", code(origin.commit)],
      ["changes after it", origin.dirty === "true" ? "yes; they travel with the MLflow run" : null],
      ["data", origin.data],
      ["sha256 of the CSV", code(lineage.csv_sha256)],
      ["generator", code(believed.passport.generator_digest)],
      ...Object.entries(origin).filter(([key]) => !(key in known)),
    ]),
    piece("h3", {}, "Make it again"),
    lineage.run_id
      ? piece(
        "p",
        {},
        code(`cgan reproduce ${lineage.run_id}`),
        " repeats the training and compares the bytes.",
      )
      : piece(
        "p",
        {},
        "This page was made before the run had reached MLflow, so it holds no run id. ",
        code("cgan track flush"),
        " delivers it; ",
        code("dvc repro --force page"),
        " makes the page again.",
      ),
    piece(
      "p",
      {},
      "Or, in a clone at that commit, with its params.yaml and data: ",
      code("dvc repro"),
      ".",
    ),
    folded(
      "Hashes of the files, as in dvc.lock",
      () =>
        tableOf("md5", ["file", "md5"], lineage.files.map(({ path, md5 }) => [path, code(md5)])),
    ),
    believed.left_out.length
      ? piece(
        "div",
        {},
        piece("h3", {}, "Left out of this page"),
        ...believed.left_out.map((text) => piece("p", {}, text)),
      )
      : null,
  );
}

if (believed) {
  showMetrics();
  showTraining();
  showClasses();
  showDrawings();
  showData();
  showSuspects();
  showParams();
  showLineage();
}
