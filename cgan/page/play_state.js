/** What a picture depends on, and the link that holds it. */
import { RUN, SHAPE } from "./page_data.js";

export const MAX_SEED = Number.MAX_SAFE_INTEGER;
const MAX_TEXT = 20_000; // 200 drawings of classes with names of a hundred characters
const LINK_PAUSE_MS = 250; // browsers limit how often the address may change
const LAST = SHAPE.classes - 1;

/**
 * `x` and `y`, -1 to 1: the place in the latent space. `from`, `to`: labels; `mix`, 0 to 1: how much of the
 * second. Each number with its range, and whether it is whole.
 */
const RANGES = {
  ...{ seed: [0, MAX_SEED, true], from: [0, LAST, true], to: [0, LAST, true] },
  ...{ x: [-1, 1], y: [-1, 1], mix: [0, 1] },
};
const FRESH = {
  text: RUN.examples[0],
  seed: 0,
  x: 0,
  y: 0,
  from: 0,
  to: Math.min(8, LAST),
  mix: 0,
};

/** The state that a link's hash holds. What makes no sense in it is left out. */
export function stateFrom(hash) {
  const state = { ...FRESH }, asked = new URLSearchParams(hash.slice(1));
  if (asked.has("text")) state.text = asked.get("text").slice(0, MAX_TEXT);
  for (const [key, [least, most, whole]] of Object.entries(RANGES)) {
    const value = Number(asked.get(key) || NaN);
    if (value >= least && value <= most && (!whole || Number.isInteger(value))) state[key] = value;
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
