/** Drawings on canvases, and as files. */
import { SHAPE } from "./page_data.js";

const MAX_SIDE = 16_384; // of a canvas
const MAX_AREA = 2 ** 26;

/** [channels, height, width] → what a canvas takes. */
export function imageOf(drawing) {
  const pixels = SHAPE.height * SHAPE.width;
  const image = new ImageData(SHAPE.width, SHAPE.height);
  for (let pixel = 0; pixel < pixels; pixel++) {
    for (let plane = 0; plane < 3; plane++) {
      image.data[4 * pixel + plane] =
        drawing[SHAPE.channels === 3 ? plane * pixels + pixel : pixel];
    }
    image.data[4 * pixel + 3] = 255;
  }
  return image;
}

/** How many stand in a line, when as few lines as possible are about equally long. */
export function balanced(count, most) {
  return Math.ceil(count / Math.ceil(count / most));
}

/** Change a canvas's size only when it is another: to set it clears the canvas. Returns whether it did. */
export function resize(canvas, width, height) {
  if (canvas.width === width && canvas.height === height) return false;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.fillStyle = "black";
  context.fillRect(0, 0, width, height);
  return true;
}

const oneDrawing = document.createElement("canvas");

/** Paint a drawing into a box of another size, alone, so that it does not shine into its neighbours. */
function paintScaled(context, drawing, x, y, width, height, smooth) {
  resize(oneDrawing, SHAPE.width, SHAPE.height);
  oneDrawing.getContext("2d").putImageData(imageOf(drawing), 0, 0);
  context.imageSmoothingEnabled = smooth;
  context.imageSmoothingQuality = "high";
  context.drawImage(oneDrawing, x, y, width, height);
}

/** One picture of drawings side by side; null if it is too large for a canvas. */
export function pictureOf(drawings, columns, scale, smooth) {
  const [width, height] = [SHAPE.width * scale, SHAPE.height * scale];
  const lines = Math.ceil(drawings.length / columns);
  const area = columns * width * lines * height;
  if (Math.max(columns * width, lines * height) > MAX_SIDE || area > MAX_AREA) return null;
  const canvas = document.createElement("canvas");
  resize(canvas, columns * width, lines * height);
  const context = canvas.getContext("2d");
  drawings.forEach((drawing, i) => {
    const [x, y] = [i % columns * width, Math.floor(i / columns) * height];
    paintScaled(context, drawing, x, y, width, height, smooth);
  });
  return canvas;
}

export async function downloadPng(canvas, name) {
  download(await new Promise((found) => canvas.toBlob(found, "image/png")), name);
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** A text as part of a file's name. */
export function fileName(text) {
  return text.normalize("NFKD").replace(/[^A-Za-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 40);
}
