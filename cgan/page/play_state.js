/** What a picture depends on, and the link that holds it. */
import { RUN, SHAPE } from "./page_data.js";

export const MAX_SEED = Number.MAX_SAFE_INTEGER;
const LINK_PAUSE_MS = 250; // browsers limit how often the address may change

/**
 * `x` and `y`, -1 to 1: the place in the latent space. `from`, `to`: labels; `mix`, 0 to 1: how much of the
 * second.
 */
const FRESH = {
  text: RUN.examples[0],
  seed: 0,
  x: 0,
  y: 0,
  from: 0,
  to: Math.min(8, SHAPE.classes - 1),
  mix: 0,
};

/** The state that a link's hash holds. */
export function stateFrom(hash) {
  const state = { ...FRESH };
  for (const [key, value] of new URLSearchParams(hash.slice(1))) {
    if (key in FRESH) state[key] = key === "text" ? value : Number(value);
  }
  return state;
}

export const hashOf = (state) => `#${new URLSearchParams(state)}`;

let linkTimer = 0;

/** Put the state into the address, soon. */
export function keepInLink(state) {
  clearTimeout(linkTimer);
  linkTimer = setTimeout(() => history.replaceState(null, "", hashOf(state)), LINK_PAUSE_MS);
}
