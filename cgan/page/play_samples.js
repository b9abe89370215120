/** A thousand drawings: shown as a grid, and as a CSV. The same as `cgan draw --per-class 100` makes of ten classes. */
import { listOf, SHAPE } from "./page_data.js";
import { conditionOf, forward } from "./generator.js";
import { NAMES } from "./play_text.js";
import { csvOf, download, downloadPng, fileName, paintScaled, resize } from "./play_pictures.js";
import { latentsOf } from "./play_latents.js";

const COUNT = 1000;
const SAMPLE_REM = 1.75;
const MOST_PIXELS = 64; // of a side, in the grid

export const part = (name) => document.getElementById(`play-${name}`);

/** Do something with a control's value when something happens to it. */
export function on(name, event, act) {
  part(name).addEventListener(event, () => act(part(name).value));
}

let set = null; // {seed, of, latents, labels, drawings, columns, scale}
let running = false;

/** Draw the samples of a seed: of one class, or of all in turn. Called while it draws, it stops. */
export function showSamples(seed, of) {
  if (running) return finish(`Stopped after ${set.drawings.length} of ${COUNT} samples.`);
  const labels = listOf(COUNT, (i) => of ?? i % SHAPE.classes);
  set = { seed, of, latents: latentsOf(seed, COUNT), labels, drawings: [] };
  running = true;
  const canvas = part("samples");
  canvas.hidden = false;
  layOutGrid(canvas);
  part("progress").hidden = false;
  part("draw").textContent = "Stop";
  part("csv").disabled = part("samples-png").disabled = true;
  part("samples-said").textContent = `Drawing ${COUNT.toLocaleString("en")} …`;
}

/** Draw the next sample, if one is due. */
export function drawSample() {
  if (!running) return false;
  const index = set.drawings.length;
  const drawing = forward(set.latents[index], conditionOf(set.labels[index]));
  set.drawings.push(drawing);
  const { columns, width, height } = set;
  const [x, y] = [index % columns * width, Math.floor(index / columns) * height];
  const context = part("samples").getContext("2d");
  paintScaled(context, drawing, x, y, width, height, true);
  part("progress").value = index + 1;
  if (index + 1 === COUNT) finish(`${COUNT.toLocaleString("en")} samples, seed ${set.seed}.`);
  return true;
}

function finish(words) {
  running = false;
  part("progress").hidden = true;
  part("draw").textContent = "Draw 1,000";
  part("csv").disabled = part("samples-png").disabled = !set.drawings.length;
  part("samples-said").textContent = words;
  const what = set.of === null ? "all classes in turn" : NAMES[set.of];
  const label = `${set.drawings.length} samples of ${what}, seed ${set.seed}`;
  part("samples").setAttribute("aria-label", label);
}

/** Whole rounds of the classes in a line, where there is room for them. */
function layOutGrid(canvas) {
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const room = canvas.parentElement.clientWidth || 320;
  const fit = Math.max(20, Math.min(50, Math.floor(room / (SAMPLE_REM * rem))));
  set.columns = SHAPE.classes <= fit ? fit - fit % SHAPE.classes : fit;
  const scale = Math.min(1, MOST_PIXELS / Math.max(SHAPE.width, SHAPE.height));
  set.width = Math.max(1, Math.round(SHAPE.width * scale));
  set.height = Math.max(1, Math.round(SHAPE.height * scale));
  resize(canvas, 1, 1);
  resize(canvas, set.columns * set.width, Math.ceil(COUNT / set.columns) * set.height);
}

function sampleFile(ending) {
  const what = set.of === null ? "" : `${fileName(NAMES[set.of]) || set.of}-`;
  return `samples-${what}seed-${set.seed}.${ending}`;
}

on("csv", "click", () => download(csvOf(set.drawings, set.labels), sampleFile("csv")));
on("samples-png", "click", () => downloadPng(part("samples"), sampleFile("png")));
