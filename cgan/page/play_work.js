/** Drawing in slices: long work must not keep the page from answering. */
import { SHAPE } from "./generator.js";
import { drawLatents } from "./play_random.js";

const SLICE_MS = 24;

/**
 * @param {(() => boolean)[]} sources each draws one thing that is due, and says whether there was any. The
 *   first that has something goes before the others.
 * @returns {() => Promise<void>} to call when something may be due
 */
export function worker(sources) {
  let working = false;
  return async () => {
    if (working) return;
    working = true;
    try {
      let began = performance.now();
      while (sources.some((drawOne) => drawOne())) {
        if (performance.now() - began < SLICE_MS) continue;
        await new Promise((go) => setTimeout(go));
        began = performance.now();
      }
    } finally {
      working = false;
    }
  };
}

/**
 * The first `count` latents of a seed, moved by the pad. Each goes on a great circle, so it stays as long as it
 * was: `x` leads towards its fellow of the next seed, `y` to that of the one after, a quarter turn at 1. All
 * points of the pad are then as random as the middle, and the generator draws as well there.
 */
export function latentsOf(seed, count, x = 0, y = 0) {
  const latents = drawLatents(seed, count, SHAPE.latent_dim);
  const distance = Math.hypot(x, y);
  if (!distance) return latents;
  const [across, up] = [1, 2].map((next) => drawLatents(seed + next, count, SHAPE.latent_dim));
  const [stay, go] = [Math.cos(distance * Math.PI / 2), Math.sin(distance * Math.PI / 2)];
  return latents.map((latent, i) => {
    const right = perpendicular(across[i], [latent]);
    const top = perpendicular(up[i], [latent, right]);
    const length = Math.sqrt(dot(latent, latent)) / distance;
    return latent.map((value, n) => stay * value + go * length * (x * right[n] + y * top[n]));
  });
}

/** A vector of length 1: the part of `vector` that is at right angles to others, which are so to each other. */
function perpendicular(vector, others) {
  const rest = others.reduce((left, other) => {
    const share = dot(left, other) / dot(other, other);
    return left.map((value, n) => value - share * other[n]);
  }, vector);
  const length = Math.sqrt(dot(rest, rest));
  return rest.map((value) => value / length);
}

function dot(a, b) {
  return a.reduce((sum, value, n) => sum + value * b[n], 0);
}
