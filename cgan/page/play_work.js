/** Drawing in slices: long work must not keep the page from answering. */
import { RUN, SHAPE } from "./generator.js";
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

/** The first `count` latents of a seed. */
export function latentsOf(seed, count) {
  return drawLatents(seed, count, SHAPE.latent_dim);
}

/**
 * A latent moved along its great circle, so that it stays as long as it was: at distance 0 it is where it
 * was, at distance 1 all latents meet in one direction, of the two that weights.py chose.
 */
export function moved(latent, x, y) {
  const [first, second] = RUN.directions;
  const distance = Math.hypot(x, y);
  if (!first || !distance) return latent;
  const aim = latent.map((_, i) => (x * first[i] + y * second[i]) / distance);
  const [dot, norm] = [sumOf(aim, latent), Math.sqrt(sumOf(latent, latent))];
  const across = aim.map((value, i) => value - dot / norm ** 2 * latent[i]);
  const length = Math.sqrt(sumOf(across, across));
  // It stands at `start` from the aim; a part of this angle is gone.
  const angle = Math.atan2(length, dot / norm) * distance;
  if (!(norm > 0 && length > 1e-6)) return latent;
  const [stay, go] = [Math.cos(angle), Math.sin(angle) * norm / length];
  return latent.map((value, i) => stay * value + go * across[i]);
}

function sumOf(a, b) {
  return a.reduce((sum, value, i) => sum + value * b[i], 0);
}
