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
 * The first `count` latents of a seed, moved by the pad. Each goes on a great circle, so it stays as long, and as
 * random, as it was: `x` leads towards its fellow of the next seed, `y` of the one after, a quarter turn at 1.
 */
export function latentsOf(seed, count, x = 0, y = 0) {
  const latents = drawLatents(seed, count, SHAPE.latent_dim);
  if (!x && !y) return latents;
  const way = seed > 2 ** 52 ? -1 : 1; // beyond the last seed are no whole numbers
  const [across, up] = [1, 2].map((n) => drawLatents(seed + n * way, count, SHAPE.latent_dim));
  const angle = Math.hypot(x, y) * Math.PI / 2;
  return latents.map((latent, i) => {
    const towards = latent.map((_, n) => x * across[i][n] + y * up[i][n]);
    const share = dot(towards, latent) / dot(latent, latent);
    const aim = towards.map((value, n) => value - share * latent[n]); // at right angles to the latent
    const go = Math.sin(angle) * Math.sqrt(dot(latent, latent) / dot(aim, aim));
    return latent.map((value, n) => Math.cos(angle) * value + go * aim[n]);
  });
}

function dot(a, b) {
  return a.reduce((sum, value, n) => sum + value * b[n], 0);
}
