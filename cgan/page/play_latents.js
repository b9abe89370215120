/** torch.randn in JavaScript: a seed draws here what `cgan draw --seed` draws with it. */
import { listOf, SHAPE } from "./page_data.js";

/**
 * The first `count` latents of a seed, moved by the pad. Each goes on a great circle, so it stays as long, and as
 * random, as it was: `x` leads towards its fellow of the next seed, `y` of the one after, a quarter turn at 1.
 */
export function latentsOf(seed, count, x = 0, y = 0) {
  const latents = drawLatents(seed, count);
  if (!x && !y) return latents;
  const way = seed > 2 ** 52 ? -1 : 1; // beyond the last seed are no whole numbers
  const [across, up] = [1, 2].map((n) => drawLatents(seed + n * way, count));
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

/**
 * The first `count` latents of a seed, as cgan/models/sampling.py draws them: torch fills a chunk of them with
 * uniform numbers, and turns each sixteen of these into normal ones by Box and Muller's formula.
 */
function drawLatents(seed, count) {
  const size = SHAPE.latent_dim;
  const next = mersenneTwister(seed);
  const total = Math.ceil(count * size / 16) * 16;
  const normal = new Float32Array(total);
  for (let i = 0; i < total; i++) normal[i] = (next() & 0xffffff) / 2 ** 24;
  for (let start = 0; start < total; start += 16) {
    for (let i = start; i < start + 8; i++) {
      const radius = Math.sqrt(-2 * Math.log(1 - normal[i]));
      const angle = 2 * Math.PI * normal[i + 8];
      normal[i] = radius * Math.cos(angle);
      normal[i + 8] = radius * Math.sin(angle);
    }
  }
  return listOf(count, (i) => normal.subarray(i * size, (i + 1) * size));
}

/** MT19937 (Matsumoto and Nishimura, 1998). Of the seed it takes the lower 32 bits, as torch does. */
function mersenneTwister(seed) {
  const state = new Uint32Array(624);
  state[0] = seed % 2 ** 32;
  for (let i = 1; i < 624; i++) {
    const before = state[i - 1] ^ (state[i - 1] >>> 30);
    state[i] = Math.imul(1812433253, before) + i;
  }
  let at = 624;
  return () => {
    if (at === 624) {
      for (let i = 0; i < 624; i++) {
        const joined = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
        state[i] = state[(i + 397) % 624] ^ (joined >>> 1) ^ (joined & 1 ? 0x9908b0df : 0);
      }
      at = 0;
    }
    let bits = state[at++];
    bits ^= bits >>> 11;
    bits ^= (bits << 7) & 0x9d2c5680;
    bits ^= (bits << 15) & 0xefc60000;
    return (bits ^ (bits >>> 18)) >>> 0;
  };
}
