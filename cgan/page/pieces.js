/** Pieces of which pages are built. Whatever comes from data becomes text, never markup. */

/**
 * @param {string} tag
 * @param {Record<string, unknown>} [properties] set as attributes; `onclick` and the like as listeners
 * @param {...(Node | string | number | null | undefined)} children
 * @returns {HTMLElement}
 */
export function piece(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null) element.setAttribute(name, String(value));
  }
  for (const child of children) {
    if (child !== null && child !== undefined) {
      element.append(child instanceof Node ? child : String(child));
    }
  }
  return element;
}

/** @param {number | null | undefined} value @param {number} digits significant ones */
export function inDigits(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return String(Number(value.toPrecision(digits)));
}

const LONG = 40; // characters of a cell that is read as a sentence

/**
 * A table with a caption and a header.
 * @param {string} caption
 * @param {string[]} header
 * @param {(Node | string | number | null)[][]} rows
 */
export function tableOf(caption, header, rows) {
  const isNumber = (/** @type {unknown} */ cell) =>
    typeof cell === "number" || /^[-–−+\d]([\d.,%± –−+e-]| to )*$/.test(String(cell));
  const numeric = header.map((_, n) =>
    n > 0 && rows.length > 0 && rows.every((row) => isNumber(row[n]))
  );
  const long = header.map((_, n) => rows.some((row) => String(row[n]).length > LONG));
  const head = header.map((name, n) =>
    piece("th", { scope: "col", class: numeric[n] ? "number" : null }, name)
  );
  const body = rows.map((cells) =>
    piece(
      "tr",
      {},
      ...cells.map((cell, n) => {
        const text = typeof cell === "number" ? inDigits(cell) : cell;
        return n === 0
          ? piece("th", { scope: "row" }, text)
          : piece("td", { class: numeric[n] ? "number" : long[n] ? "long" : null }, text);
      }),
    )
  );
  const table = piece(
    "table",
    {},
    piece("caption", {}, caption),
    piece("thead", {}, piece("tr", {}, ...head)),
    piece("tbody", {}, ...body),
  );
  // Reached by the keyboard, so that a wide table can be moved without a pointer.
  return piece("div", { class: "wide", tabindex: 0, role: "region", "aria-label": caption }, table);
}

/**
 * Something that is made only when it is opened.
 * @param {string} summary
 * @param {() => Node} make
 */
export function folded(summary, make) {
  const details = piece("details", {}, piece("summary", {}, summary));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(make());
  });
  return details;
}

/** @param {unknown} src @returns {string} nothing but a picture in this file */
export function pictureSource(src) {
  const ours = typeof src === "string" && /^data:image\/(png|webp);base64,[\w+/=]*$/.test(src);
  return ours ? src : "data:,";
}

/**
 * A sheet of equal images, drawn tile by tile when it is loaded.
 * @typedef {{src: string, count: number, columns: number, width: number, height: number}} SheetData
 */
export class TileSheet {
  /** @param {SheetData} sheet */
  constructor(sheet) {
    this.sheet = sheet;
    this.image = new Image();
    this.image.src = pictureSource(sheet.src);
    this.loaded = this.image.decode().catch(() => {});
  }

  /**
   * @param {number} index
   * @param {string} words for those who don't see it
   * @param {number} side of the tile on the screen, in pixels
   */
  tile(index, words, side = 56) {
    const { width, height, columns } = this.sheet;
    const canvas = piece("canvas", { width, height, role: "img", "aria-label": words });
    canvas.className = "tile";
    canvas.style.width = `${Math.round(side * Math.min(1, width / height))}px`;
    this.loaded.then(() => {
      const [x, y] = [(index % columns) * width, Math.floor(index / columns) * height];
      canvas.getContext("2d").drawImage(this.image, x, y, width, height, 0, 0, width, height);
    });
    return canvas;
  }
}

/**
 * A slider over pictures of a training, with a button that plays them.
 * @param {{name: string, frames: {step: number, src: string, width: number, height: number}[]}[]} films
 *   one, or several side by side, which go by step
 */
export function scrubber(films) {
  const steps = [...new Set(films.flatMap(({ frames }) => frames.map(({ step }) => step)))];
  steps.sort((a, b) => a - b);
  const last = Math.max(0, steps.length - 1);
  const shown = films.map(({ name, frames }) => {
    const image = piece("img", { alt: "", width: frames[0]?.width, height: frames[0]?.height });
    const caption = piece("figcaption");
    const sources = frames.map(({ src }) => pictureSource(src));
    const show = (/** @type {number} */ step) => {
      const at = frames.findLastIndex((frame) => frame.step <= step);
      if (at < 0) return;
      image.src = sources[at];
      const words = `${name ? `${name}: ` : ""}step ${inDigits(frames[at].step)}`;
      image.alt = `Drawings at ${words}`;
      caption.textContent = words;
    };
    return { show, node: piece("figure", {}, image, caption) };
  });
  const slider = piece("input", {
    type: "range",
    min: 0,
    max: last,
    value: last,
    "aria-label": "Step of the training",
  });
  const go = (/** @type {number} */ index) => {
    slider.value = String(index);
    slider.setAttribute("aria-valuetext", `step ${inDigits(steps[index])}`);
    shown.forEach(({ show }) => show(steps[index]));
  };
  let timer = 0;
  const play = piece("button", { type: "button", "aria-pressed": "false" }, "Play");
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };
  play.addEventListener("click", () => {
    if (timer) return stop();
    play.textContent = "Stop";
    play.setAttribute("aria-pressed", "true");
    go(0);
    timer = setInterval(
      () => Number(slider.value) < last ? go(Number(slider.value) + 1) : stop(),
      600,
    );
  });
  slider.addEventListener("input", () => {
    stop();
    go(Number(slider.value));
  });
  if (steps.length) go(last);
  return piece(
    "div",
    { class: "scrubber" },
    piece("div", { class: "films" }, ...shown.map(({ node }) => node)),
    piece("div", { class: "controls" }, play, slider),
  );
}
