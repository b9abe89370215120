/** The first half of the page: what a visitor does, and what is drawn for it. */
import { RUN, SHAPE } from "./page_data.js";
import { conditionOf, forward, mixedCondition } from "./generator.js";
import { NAMES, parseText } from "./play_text.js";
import { hashOf, keepInLink, MAX_SEED, stateFrom } from "./play_state.js";
import { balanced, downloadPng, imageOf, resize } from "./play_pictures.js";
import { latentsOf } from "./play_latents.js";

const MOST_IN_LINE = 20; // as in `cgan draw`
const SLICE_MS = 24;
const IS_FILE = location.protocol === "file:";
const CELL_REM = { least: 3.5, most: 17 };

/** What the picture and the morph are drawn from. Only `change` writes it. */
let state = stateFrom(location.hash);

const part = (name) => document.getElementById(`play-${name}`);

/** Do something with a control's value when something happens to it. */
function on(name, event, act) {
  part(name).addEventListener(event, () => act(part(name).value));
}

const say = (text) => part("said").textContent = text;

// -- The text ----------------------------------------------------------------------------------------

/** A cell for each class of the text: its drawing, and whether that is still to be made. */
let cells = [];
let cellCursor = 0;
let columns = 1;
/** What the cells were drawn for: a text that has no class leaves the last picture, and what it is of. */
let shown = null;

function askForText() {
  const { labels, fault } = parseText(state.text);
  part("fault").textContent = fault;
  part("text").setAttribute("aria-invalid", String(fault !== ""));
  if (!labels.length) return; // the last picture stays
  const { seed, x, y } = state;
  const all = seed !== shown?.seed || x !== shown.x || y !== shown.y;
  shown = state;
  const latents = latentsOf(seed, labels.length, x, y);
  cells = labels.map((label, i) => {
    const before = cells[i];
    const due = all || before?.label !== label || before.due;
    return { label, latent: latents[i], drawing: before?.drawing, due };
  });
  const words = labels.map((label) => NAMES[label]).join(RUN.between);
  const place = x || y ? `, moved to ${x}, ${y}` : "";
  part("picture").setAttribute("aria-label", `${words}, drawn with seed ${seed}${place}`);
  layOut();
}

/** Draw the next cell that is due. Round robin, so that each has its turn while somebody drags. */
function drawCell() {
  const waiting = cells.findIndex((cell, i) => cell.due && i >= cellCursor);
  const index = waiting < 0 ? cells.findIndex((cell) => cell.due) : waiting;
  part("picture").setAttribute("aria-busy", String(index >= 0));
  if (index < 0) return false;
  const cell = cells[index];
  cell.drawing = forward(cell.latent, conditionOf(cell.label));
  cell.due = false;
  cellCursor = index + 1;
  paintCell(index);
  return true;
}

function paintCell(index) {
  const [x, y] = [index % columns * SHAPE.width, Math.floor(index / columns) * SHAPE.height];
  const { drawing } = cells[index];
  if (drawing) part("picture").getContext("2d").putImageData(imageOf(drawing), x, y);
}

/** As many in a line as there is room for. */
function layOut() {
  if (!cells.length) return;
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const room = part("board").clientWidth || 320;
  const most = Math.max(1, Math.min(MOST_IN_LINE, Math.floor(room / (CELL_REM.least * rem))));
  columns = balanced(cells.length, most);
  const lines = Math.ceil(cells.length / columns);
  const canvas = part("picture");
  const changed = resize(canvas, columns * SHAPE.width, lines * SHAPE.height);
  canvas.style.width = `${Math.min(room, columns * CELL_REM.most * rem)}px`;
  if (changed) cells.forEach((_, i) => paintCell(i));
}

// -- The morph ---------------------------------------------------------------------------------------

let morphDue = true;

function drawMorph() {
  if (!morphDue) return false;
  morphDue = false;
  const [latent] = latentsOf(state.seed, 1, state.x, state.y);
  const drawing = forward(latent, mixedCondition(state.from, state.to, state.mix));
  const canvas = part("morph");
  resize(canvas, SHAPE.width, SHAPE.height);
  canvas.getContext("2d").putImageData(imageOf(drawing), 0, 0);
  const percent = Math.round(100 * state.mix);
  const words = `${percent} % of the way from ${NAMES[state.from]} to ${NAMES[state.to]}`;
  canvas.setAttribute("aria-label", words);
  part("mix").setAttribute("aria-valuetext", words);
  return true;
}

let morphFrame = 0; // that is asked for, while the morph plays

/** There and back, in four seconds; where little motion is wanted, in eleven still pictures. */
function startOrStopMorph(running) {
  cancelAnimationFrame(morphFrame);
  morphFrame = 0;
  part("run").textContent = running ? "Pause" : "Play";
  part("run").setAttribute("aria-pressed", String(running));
  if (!running) return;
  const began = performance.now() - 2000 * state.mix;
  const steps = matchMedia("(prefers-reduced-motion: reduce)").matches ? 10 : 100;
  const show = (now) => {
    const phase = (now - began) / 4000 % 1;
    const mix = Math.round(steps * (phase < 0.5 ? 2 * phase : 2 - 2 * phase)) / steps;
    if (mix !== state.mix) change({ mix });
    morphFrame = requestAnimationFrame(show);
  };
  morphFrame = requestAnimationFrame(show);
}

// -- Changes -----------------------------------------------------------------------------------------

let working = false;

/** Draw what is due, in slices, so that the page goes on answering. */
async function wake() {
  if (working) return;
  working = true;
  try {
    let began = performance.now();
    while (drawCell() || drawMorph()) {
      if (performance.now() - began < SLICE_MS) continue;
      await new Promise((go) => setTimeout(go));
      began = performance.now();
    }
  } finally {
    working = false;
  }
}

/** The only way to another picture: new values in the state, then everything that depends on them. */
function change(values, show = false) {
  state = { ...state, ...values };
  const point = ["seed", "x", "y"].some((key) => key in values);
  if (point || "text" in values) askForText();
  if (point || ["from", "to", "mix"].some((key) => key in values)) morphDue = true;
  if (show || !("text" in values || "seed" in values)) showState();
  keepInLink(state);
  wake();
}

/** Put the state into the controls. */
function showState() {
  for (const key of ["text", "seed", "x", "y", "from", "to", "mix"]) {
    if (part(key).value !== String(state[key])) part(key).value = state[key];
  }
  part("seed-fault").textContent = "";
  part("seed").setAttribute("aria-invalid", "false");
  part("dot").style.setProperty("--x", state.x);
  part("dot").style.setProperty("--y", state.y);
}

function listen() {
  on("text", "input", (text) => change({ text }));
  on("add", "change", (label) => {
    const before = state.text.trim().replace(/,$/, "");
    change({ text: before + (before && RUN.between) + NAMES[label] }, true);
    part("add").value = "";
  });
  document.querySelectorAll(".play-chips button").forEach((chip) =>
    chip.addEventListener("click", () => change({ text: chip.textContent }, true))
  );
  on("seed", "input", (seed) => {
    const fits = part("seed").validity.valid;
    part("seed-fault").textContent = fits
      ? ""
      : `The seed is a whole number from 0 to ${MAX_SEED}. The picture still shows seed ${state.seed}.`;
    part("seed").setAttribute("aria-invalid", String(!fits));
    if (fits) change({ seed: Number(seed) });
  });
  on("another", "click", () => change({ seed: state.seed < MAX_SEED ? state.seed + 1 : 0 }, true));
  for (const key of ["x", "y", "mix"]) {
    on(key, "input", (value) => change({ [key]: Number(value) }));
  }
  on("mix", "input", () => startOrStopMorph(false));
  on("centre", "click", () => change({ x: 0, y: 0 }));
  listenToPad();
  for (const key of ["from", "to"]) on(key, "change", (label) => change({ [key]: Number(label) }));
  on("run", "click", () => startOrStopMorph(!morphFrame));
  on("png", "click", downloadPicture);
  on("copy", "click", copyLink);
  if (IS_FILE) part("copy").textContent = "Copy command";
  addEventListener("hashchange", () => {
    if (location.hash.startsWith("#text=")) change(stateFrom(location.hash), true);
  });
  new ResizeObserver(layOut).observe(part("board"));
}

function listenToPad() {
  const pad = part("pad");
  const follow = (event) => {
    const box = pad.getBoundingClientRect();
    const along = (at, start, size) => {
      const place = Math.max(-1, Math.min(1, 2 * (at - start) / size - 1));
      return Math.round(100 * place) / 100 || 0;
    };
    const x = along(event.clientX, box.left, box.width);
    change({ x, y: -along(event.clientY, box.top, box.height) || 0 });
  };
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    follow(event);
  });
  pad.addEventListener("pointermove", (event) => {
    if (pad.hasPointerCapture(event.pointerId)) follow(event);
  });
}

async function downloadPicture() {
  while (drawCell());
  if (!cells.length) return say("There is no picture yet.");
  const words = shown.text.replace(/[^A-Za-z0-9]+/g, "-").slice(0, 40);
  const name = `${words}-seed-${shown.seed}.png`;
  const { width, height } = await downloadPng(part("picture"), name);
  say(`${name}: ${width}×${height} pixels.`);
}

/** A link to a file opens nothing elsewhere: a command draws the same there, but for the move. */
async function copyLink() {
  const { text, seed } = shown ?? state;
  const copied = IS_FILE
    ? `cgan draw '${text.replaceAll("'", `'\\''`)}' --seed ${seed}`
    : location.href.split("#")[0] + hashOf(state);
  try {
    await navigator.clipboard.writeText(copied);
    say(`Copied: ${copied}`);
  } catch {
    say(`This browser does not let pages copy: ${copied}`);
  }
}

// -- Opening -----------------------------------------------------------------------------------------

function fillChoices() {
  const option = (name, value) => Object.assign(new Option(), { textContent: name, value });
  for (const name of ["from", "to", "add"]) {
    part(name).append(...NAMES.map((text, label) => option(text, label)));
  }
  part("add").prepend(option("a class", ""));
  part("add").value = "";
  part("add-part").hidden = !RUN.between;
  part("text-label").textContent = RUN.between ? "Classes" : "Number";
  if (!RUN.between) part("text").inputMode = "numeric";
  part("hint").textContent = RUN.hint;
  part("move").hidden = SHAPE.latent_dim < 2;
}

/**
 * For programs. `latents(seed, count, x, y)` are those of `cgan draw --seed`, moved to a place of the pad;
 * `draw(latents, labels)` are drawings, Uint8Array [channels, height, width] each.
 */
globalThis.cgan = {
  latents: latentsOf,
  draw: (latents, labels) => latents.map((latent, i) => forward(latent, conditionOf(labels[i]))),
};

fillChoices();
showState();
listen();
askForText();
wake();
