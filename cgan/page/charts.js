/** Charts, drawn by Vega once they come into sight, in the page's colours; their numbers as a table. */
import { folded, inDigits, piece, tableOf } from "./pieces.js";

const PALETTE = ["#1f77b4", "#d95f02", "#2a9d5c", "#b5399b", "#8c6d1f", "#5b6ee1"];
const PALETTE_DARK = ["#6cb0ff", "#ffa65c", "#63d69a", "#f08bd8", "#e3c567", "#a9b4ff"];
const night = matchMedia("(prefers-color-scheme: dark)");
/** @type {Promise<unknown> | null} */
let libraryLoaded = null;

/** The library: unpacked and run when the first chart needs it. */
function chartLibrary() {
  libraryLoaded ??= (async () => {
    const packed = document.querySelector("#chart-library").textContent;
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    return globalThis.vegaEmbed;
  })();
  return libraryLoaded;
}

/** Vega's settings from the style of the page. */
function chartColours(/** @type {number} */ width) {
  const style = getComputedStyle(document.body);
  const [ink, faint, line] = ["--ink", "--faint", "--line"].map((name) => colourOf(name));
  return {
    background: "transparent",
    font: style.fontFamily,
    range: { category: night.matches ? PALETTE_DARK : PALETTE },
    axis: {
      labelColor: faint,
      titleColor: ink,
      gridColor: line,
      domainColor: line,
      tickColor: line,
      titleFontWeight: "normal",
    },
    legend: {
      labelColor: ink,
      orient: "top",
      title: null,
      labelLimit: 260,
      columns: width < 420 ? 1 : 3,
    },
    rule: { color: faint },
    text: { color: ink },
    view: { stroke: null },
  };
}

/** The colour that a property of the style has now: light-dark() is resolved by an element. */
function colourOf(name) {
  const probe = piece("span", { style: `color: var(${name}); display: none` });
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

/**
 * A chart with its title, buttons to zoom if it has a domain, and a table of its numbers.
 * @param {{title: string, description: string, spec: (domain: number[] | null) => object,
 *   extent?: number[], table: () => Node}} chart
 */
export function chartOf({ title, description, spec, extent, table }) {
  const place = piece("div", {
    class: "chart",
    role: "img",
    "aria-label": `${title}. ${description}`,
  });
  /** @type {number[] | null} */
  let domain = null;
  /** @type {{view: {scale: (name: string) => {domain: () => number[]}}, finalize: () => void} | null} */
  let drawn = null;
  let drawing = Promise.resolve();
  const draw = () => {
    drawing = drawing.then(async () => {
      const embed = await chartLibrary();
      drawn?.finalize();
      drawn = null;
      drawn = await embed(place, spec(domain), {
        actions: false,
        ast: true,
        config: chartColours(place.clientWidth),
        renderer: "svg",
        tooltip: { theme: night.matches ? "dark" : "light" },
      });
      place.dataset.drawn = "true";
    }).catch((error) => {
      console.info(error);
      place.removeAttribute("role"); // words are read out, a picture is not
      place.textContent = "This browser cannot draw the chart; the numbers are below.";
    });
  };
  const watcher = new IntersectionObserver((entries) => {
    if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
    watcher.disconnect();
    draw();
    night.addEventListener("change", draw);
  }, { rootMargin: "300px" });
  watcher.observe(place);

  const zoom = (/** @type {number} */ factor, /** @type {number} */ shift) => () => {
    if (!drawn) return;
    const [from, to] = drawn.view.scale("x").domain();
    const [middle, half] = [(from + to) / 2 + shift * (to - from), ((to - from) / 2) * factor];
    const [low, high] = [Math.max(extent[0], middle - half), Math.min(extent[1], middle + half)];
    domain = high > low ? [low, high] : null;
    draw();
  };
  const button = (
    /** @type {string} */ sign,
    /** @type {string} */ words,
    /** @type {() => void} */ act,
  ) =>
    piece("button", {
      type: "button",
      "aria-label": `${words}: ${title}`,
      title: words,
      onclick: act,
    }, sign);
  const buttons = extent && piece(
    "div",
    { class: "controls zoom" },
    button("+", "Zoom in", zoom(0.5, 0)),
    button("−", "Zoom out", zoom(2, 0)),
    button("←", "Earlier", zoom(1, -0.25)),
    button("→", "Later", zoom(1, 0.25)),
    button("All", "The whole training", () => {
      domain = null;
      draw();
    }),
  );
  return piece(
    "figure",
    { class: "charted" },
    piece("figcaption", {}, piece("strong", {}, title), " ", description),
    place,
    buttons,
    folded("The numbers", table),
  );
}

/**
 * Curves by step. Hover shows the values; a drag moves and Ctrl with the wheel zooms.
 * @param {{title: string, description: string, unit: string, series: string[],
 *   rows: (number | null)[][]}} curves rows: the step, then a value for each series
 */
export function lineChart({ title, description, unit, series, rows }) {
  const steps = rows.map(([step]) => step);
  const extent = [Math.min(...steps), Math.max(...steps)];
  const values = rows.flatMap(([step, ...found]) =>
    found.flatMap((value, n) => value === null ? [] : [{ step, value, series: series[n] }])
  );
  const x = (/** @type {number[] | null} */ domain) => ({
    field: "step",
    type: "quantitative",
    title: "step",
    scale: { nice: false, zero: false, domain: domain ?? extent },
    axis: {
      grid: false,
      tickMinStep: 1,
      labelOverlap: true,
      tickCount: { expr: "ceil(width / 90)" },
    },
  });
  const found = values.map(({ value }) => value);
  const [least, most] = [Math.min(...found), Math.max(...found)];
  // What falls a hundredfold would else be a line on the floor.
  const scale = least > 0 && most > 50 * least ? { type: "log", nice: true } : { zero: false };
  // Hover: the nearest step's values, in one tooltip on its rule.
  const spec = (/** @type {number[] | null} */ domain) => ({
    width: "container",
    height: 220,
    data: { values },
    encoding: { x: x(domain) },
    layer: [
      {
        params: [{
          name: "window",
          bind: "scales",
          select: { type: "interval", encodings: ["x"], zoom: "wheel![event.ctrlKey]" },
        }],
        mark: { type: "line", clip: true, strokeWidth: 2 },
        encoding: {
          y: { field: "value", type: "quantitative", title: unit, scale },
          color: { field: "series", type: "nominal", sort: series, scale: { domain: series } },
          strokeDash: {
            field: "series",
            type: "nominal",
            sort: series,
            scale: { domain: series, range: DASHES },
          },
        },
      },
      {
        transform: [{ pivot: "series", value: "value", groupby: ["step"] }],
        params: [{
          name: "hover",
          select: {
            type: "point",
            fields: ["step"],
            nearest: true,
            on: "pointerover",
            clear: "pointerout",
          },
        }],
        mark: { type: "rule", clip: true, strokeWidth: 1 },
        encoding: {
          opacity: { condition: { value: 0.8, param: "hover", empty: false }, value: 0 },
          tooltip: [
            { field: "step", type: "quantitative" },
            ...series.map((name) => ({
              field: fieldName(name),
              type: "quantitative",
              title: name,
              format: ".4~g",
            })),
          ],
        },
      },
    ],
  });
  const table = () => tableOf(title, ["step", ...series], rows);
  return chartOf({ title, description, spec, extent, table });
}

/**
 * Names for an axis: all different, without what Vega cannot read in an expression, and none that every
 * object has, such as `constructor`: Vega keeps values by name.
 * @param {string[]} names
 */
function axisNames(names) {
  const plain = names.map((name) =>
    name.replace(/[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/gu, "\ufffd").slice(0, 80)
  );
  const usable = new Set(plain).size === plain.length && !plain.some((name) => name in {});
  return usable ? plain : plain.map((name, n) => `${n}: ${name}`);
}

const DASHES = [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [10, 4], [3, 5]];

/** A field's name as Vega takes it: dots and brackets are no paths. */
function fieldName(/** @type {string} */ name) {
  return name.replace(/[\\.[\]'"]/g, "\\$&");
}

/**
 * A bar for each class, with what lies around it as a line.
 * @param {{title: string, description: string, unit: string, zero?: boolean,
 *   bars: {name: string, value: number, low?: number, high?: number}[], table: () => Node}} chart
 */
export function barChart({ title, description, unit, zero = true, bars, table }) {
  const names = axisNames(bars.map(({ name }) => name));
  const values = bars.map((bar, n) => ({ ...bar, name: names[n], n, words: inDigits(bar.value) }));
  const sort = { field: "n" };
  const encoding = {
    x: {
      field: "name",
      type: "nominal",
      sort,
      title: "class",
      axis: { labelAngle: bars.length > 12 ? -60 : 0, labelLimit: 80, labelOverlap: true },
    },
  };
  const y = { type: "quantitative", title: unit, scale: { zero } };
  const mark = zero ? { type: "bar" } : { type: "point", filled: true, size: 60 };
  const ranges = {
    mark: { type: "rule", strokeWidth: 2 },
    encoding: { y: { ...y, field: "low" }, y2: { field: "high" } },
  };
  const spec = () => ({
    width: "container",
    height: 200,
    data: { values },
    encoding,
    layer: [
      {
        mark,
        encoding: {
          y: { ...y, field: "value" },
          color: { value: (night.matches ? PALETTE_DARK : PALETTE)[0] },
          tooltip: [{ field: "name", title: "class" }, { field: "words", title: unit }],
        },
      },
      ...(bars.some(({ low }) => low !== undefined) ? [ranges] : []),
    ],
  });
  return chartOf({ title, description, spec, table });
}

/**
 * A matrix of counts, its diagonal left pale: mistakes are what is looked for.
 * @param {{title: string, description: string, names: string[], matrix: number[][]}} chart
 */
export function matrixChart({ title, description, names: given, matrix }) {
  const names = axisNames(given);
  const values = matrix.flatMap((row, asked) =>
    row.map((count, seen) => ({
      asked: names[asked],
      seen: names[seen],
      count,
      wrong: asked !== seen,
    }))
  );
  const size = names.length;
  const axis = { labelLimit: 70, grid: false };
  const ends = () => night.matches ? ["#1d2125", "#c25e12"] : ["#ffffff", "#f08c4b"];
  const spec = () => ({
    width: "container",
    height: Math.max(220, Math.min(560, size * 26)),
    data: { values },
    encoding: {
      x: {
        field: "seen",
        type: "nominal",
        sort: names,
        title: "the judge sees",
        axis: { ...axis, labelAngle: 0 },
      },
      y: { field: "asked", type: "nominal", sort: names, title: "asked for", axis },
    },
    layer: [
      {
        transform: [{ filter: "datum.wrong" }],
        mark: "rect",
        encoding: {
          color: {
            field: "count",
            type: "quantitative",
            scale: { type: "sqrt", range: ends(), zero: true },
            legend: null,
          },
          tooltip: ["asked", "seen", "count"].map((field) => ({ field })),
        },
      },
      ...(size <= 15
        ? [{
          transform: [{ filter: "datum.count > 0" }],
          mark: { type: "text", fontSize: 11 },
          encoding: {
            text: { field: "count" },
            opacity: { condition: { test: "datum.wrong", value: 1 }, value: 0.6 },
          },
        }]
        : []),
    ],
  });
  const table = () =>
    tableOf(title, ["asked for", ...names], matrix.map((row, n) => [names[n], ...row]));
  return chartOf({ title, description, spec, table });
}
