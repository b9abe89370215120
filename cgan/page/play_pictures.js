/** Drawings on canvases, and as files. */
import { SHAPE } from "./page_data.js";

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
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.fillStyle = "black";
  context.fillRect(0, 0, width, height);
  return true;
}

/** One picture of drawings side by side, each enlarged alone, so that it does not shine into its neighbours. */
export function pictureOf(drawings, columns, scale, smooth) {
  const [width, height] = [SHAPE.width * scale, SHAPE.height * scale];
  const [canvas, one] = [1, 2].map(() => document.createElement("canvas"));
  resize(canvas, columns * width, Math.ceil(drawings.length / columns) * height);
  resize(one, SHAPE.width, SHAPE.height);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = smooth;
  context.imageSmoothingQuality = "high";
  drawings.forEach((drawing, i) => {
    one.getContext("2d").putImageData(imageOf(drawing), 0, 0);
    const [x, y] = [i % columns * width, Math.floor(i / columns) * height];
    context.drawImage(one, x, y, width, height);
  });
  return canvas;
}

/** Returns whether it could: a canvas can be too large. */
export async function downloadPng(canvas, name) {
  const blob = await new Promise((found) => canvas.toBlob(found, "image/png"));
  if (!blob) return false;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  return true;
}
