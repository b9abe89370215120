/** Drawings on canvases, and as files. */
import { SHAPE } from "./page_data.js";

const [MAX_SCALE, MAX_WIDTH] = [4, 900]; // as in cgan/drawing/picture.py

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

/** Save what a canvas shows, in larger pixels, as `cgan draw` does. Returns the picture. */
export async function downloadPng(canvas, name) {
  const scale = Math.max(1, Math.min(MAX_SCALE, Math.floor(MAX_WIDTH / canvas.width)));
  const picture = document.createElement("canvas");
  resize(picture, scale * canvas.width, scale * canvas.height);
  const context = picture.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(canvas, 0, 0, picture.width, picture.height);
  const blob = await new Promise((found) => picture.toBlob(found, "image/png"));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  return picture;
}
