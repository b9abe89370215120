/** Charts: their numbers stand in the page; Vega draws each once it comes into sight, or is printed. */
import { bytesOf, RUN } from "./page_data.js";
import { NAMES } from "./play_text.js";

const MOST_CLASSES = 60; // of one chart, as in run.html

/** In the colours of the page, by the names of its style: they follow it into the dark. */
const LOOK = {
  background: "transparent",
  font: "system-ui, sans-serif",
  range: { category: [1, 2, 3].map((n) => `var(--series-${n})`) },
  axis: {
    labelColor: "var(--faint)",
    titleColor: "var(--ink)",
    titleFontWeight: "normal",
    gridColor: "var(--line)",
    domainColor: "var(--line)",
    tickColor: "var(--line)",
  },
  legend: {
    labelColor: "var(--ink)",
    orient: "top",
    title: null,
    labelLimit: 260,
    columns: { signal: "width < 420 ? 1 : 3" },
  },
  mark: { color: "var(--series-1)" },
  rule: { color: "var(--faint)" },
  text: { color: "var(--ink)" },
  view: { stroke: null },
};

const DIGITS3 = { format: ".3~r" }; // as in the tables
const fieldOf = (field, title, scale) => ({ field, type: "quantitative", title, scale });

/** Classes stand on an axis by number: a name can be what Vega takes for its own. */
function classAxis(field, title, names) {
  const labelAngle = field !== "asked" && names.join("").length > 40 ? -60 : 0; // where some would be left out
  const labelExpr = `${JSON.stringify(names)}[datum.value]`;
  const axis = { labelExpr, labelAngle, labelLimit: 80, labelOverlap: true, grid: false };
  return { field, type: "nominal", title, scale: { domain: [...names.keys()] }, axis };
}

/** What Vega-Lite draws, from what stands in the page. */
const CHARTS = {
  /** `columns` of a table, with their names. */
  curves({ table, unit, columns, mark = null }) {
    const { columns: measured, rows } = RUN[table];
    const known = Object.keys(columns).filter((column) => measured.includes(column));
    const names = known.map((column) => columns[column]);
    const values = rows.flatMap((row) =>
      known.map((column) => {
        return { step: row[0], series: columns[column], value: row[measured.indexOf(column)] };
      })
    ).filter(({ value }) => value !== null);
    const numbers = values.map(({ value }) => value);
    const [least, most] = [Math.min(...numbers), Math.max(...numbers)];
    // What falls a hundredfold would otherwise be a flat line.
    const scale = least > 0 && most > 50 * least ? { type: "log" } : { zero: false };
    const series = { field: "series", type: "nominal", sort: names, scale: { domain: names } };
    const markLine = {
      data: { values: [{}] },
      mark: { type: "rule", strokeDash: [4, 4] },
      encoding: { x: { value: 0 }, x2: { value: "width" }, y: { datum: mark } },
    };
    const step = fieldOf("step", "step of the training", { nice: false, zero: false });
    const nearest = { type: "point", fields: ["step"], nearest: true };
    return {
      data: { values },
      encoding: { x: { ...step, axis: { grid: false, tickCount: { expr: "ceil(width / 90)" } } } },
      layer: [
        ...(mark === null ? [] : [markLine]),
        {
          mark: { type: "line", strokeWidth: 2 },
          encoding: {
            y: { ...fieldOf("value", unit, scale), axis: { tickCount: scale.type ? 3 : 5 } },
            color: series,
            strokeDash: series,
          },
        },
        {
          transform: [{ pivot: "series", value: "value", groupby: ["step"] }],
          params: [{
            name: "hover",
            select: { ...nearest, on: "pointerover", clear: "pointerout" },
          }],
          mark: { type: "rule", strokeWidth: 1 },
          encoding: {
            opacity: { condition: { value: 0.8, param: "hover", empty: false }, value: 0 },
            tooltip: [
              { field: "step", type: "quantitative" },
              ...names.map((field) => ({ ...DIGITS3, field })),
            ],
          },
        },
      ],
    };
  },

  /** A bar a class; with intervals a point on each, for 0 is far away. */
  bars({ unit, value, real, ranged, least }) {
    const known = RUN.classes.filter((row) => row[least] !== null && row[value] !== null);
    const many = RUN.classes.length > MOST_CLASSES;
    if (many) known.sort((a, b) => a[least] - b[least]).splice(MOST_CLASSES);
    const names = known.map(({ label }) => NAMES[label]);
    const scale = ranged ? { zero: false, padding: 8 } : {}; // pixels, or an axis cuts the marks
    const shown = {
      mark: ranged ? { type: "point", filled: true, size: 60 } : "bar",
      encoding: {
        y: fieldOf(value, unit, scale),
        tooltip: [
          { field: "name", title: "class" },
          { ...DIGITS3, field: value, title: unit },
          ...(real ? [{ ...DIGITS3, field: real, title: "real images" }] : []),
        ],
      },
    };
    const interval = ranged && {
      mark: { type: "rule", strokeWidth: 2, color: "var(--series-1)" },
      encoding: { y: fieldOf("low", unit, scale), y2: { field: "high" } },
    };
    const ofReal = real && {
      mark: { type: "tick", thickness: 3, color: "var(--series-2)" },
      encoding: { y: fieldOf(real, unit, scale) },
    };
    return {
      data: { values: known.map((row, n) => ({ ...row, n, name: names[n] })) },
      encoding: { x: classAxis("n", "class", names) },
      layer: [shown, interval, ofReal].filter(Boolean),
    };
  },

  /** Counts, of which the mistakes are coloured: they are what is looked for. */
  matrix(_, room) {
    const values = RUN.confusion.matrix.flatMap((row, asked) =>
      row.map((count, seen) => {
        return { asked, seen, count, "asked for": NAMES[asked], "seen as": NAMES[seen] };
      })
    );
    const shade = fieldOf("count", "drawings", { type: "sqrt", zero: true });
    const mistakes = {
      transform: [{ filter: "datum.asked != datum.seen" }],
      mark: { type: "rect", fill: "var(--mistake)" },
      encoding: { fillOpacity: { ...shade, legend: null } },
    };
    const numbers = {
      mark: { type: "text", fontSize: 11 },
      encoding: { text: { field: "count" } },
    };
    const side = Math.max(160, Math.min(560, NAMES.length * 52, room - 110)); // beside it stand names
    return {
      width: side,
      height: side,
      data: { values: values.filter(({ count }) => count) },
      encoding: {
        x: classAxis("seen", "the judge sees", NAMES),
        y: classAxis("asked", "asked for", NAMES),
        tooltip: ["asked for", "seen as", "count"].map((field) => ({ field })),
      },
      layer: NAMES.length > 15 ? [mistakes] : [mistakes, numbers],
    };
  },
};

let library = null;

/** The library's script, unpacked. */
function unpacked() {
  const unzip = new DecompressionStream("gzip");
  return library ??= new Response(new Blob([bytesOf(RUN.charts)]).stream().pipeThrough(unzip))
    .text();
}

async function drawChart(place) {
  if (place.dataset.drawn) return;
  place.dataset.drawn = "begun";
  try {
    const text = await unpacked();
    if (!globalThis.vegaEmbed) {
      document.head.append(Object.assign(document.createElement("script"), { text }));
    }
    const facts = JSON.parse(place.dataset.facts);
    const chart = CHARTS[place.dataset.kind](facts, place.clientWidth);
    const spec = { width: "container", height: 220, ...chart };
    const options = { actions: false, ast: true, config: LOOK, renderer: "svg" };
    await globalThis.vegaEmbed(place, spec, options);
    place.dataset.drawn = "true";
  } catch (error) {
    console.info(error);
    place.removeAttribute("role"); // words are read out, a picture is not
    place.textContent = "This browser cannot draw the chart.";
  }
}

const chartsInSight = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    chartsInSight.unobserve(target);
    drawChart(target);
  }
}, { rootMargin: "300px" });
document.querySelectorAll(".chart").forEach((place) => chartsInSight.observe(place));

// A browser does not wait before it prints, but for what is drawn without waiting: from the script, unpacked.
(globalThis.requestIdleCallback ?? setTimeout)(unpacked);
let openedToPrint = [];
addEventListener("beforeprint", () => {
  openedToPrint = [...document.querySelectorAll(".printed:not([open])")];
  openedToPrint.forEach((part) => part.open = true);
  document.querySelectorAll("[open] .chart").forEach(drawChart);
});
addEventListener("afterprint", () => openedToPrint.forEach((part) => part.open = false));
