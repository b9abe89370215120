/** What a picture depends on, and the link that holds it. */
import { RUN, SHAPE } from "./page_data.js";

export const MAX_SEED = Number.MAX_SAFE_INTEGER;
const MAX_TEXT = 20_000; // 200 drawings of classes with names of a hundred characters
const LINK_PAUSE_MS = 250; // browsers limit how often the address may change

/**
 * `x` and `y`, -1 to 1: the place in the latent space. `from`, `to`: labels; `mix`, 0 to 1: how much of the
 * second.
 */
export function freshState() {
  const to = SHAPE.classes > 8 ? 8 : SHAPE.classes - 1;
  const [text] = RUN.examples;
  return { text, seed: 0, x: 0, y: 0, from: to > 3 ? 3 : 0, to, mix: 0 };
}

/** The state that a link's hash holds, or null where it holds none. What makes no sense in it is left out. */
export function stateFrom(hash) {
  const state = freshState();
  const asked = new URLSearchParams(hash.replace(/^#/, ""));
  const known = Object.keys(state).filter((key) => asked.has(key));
  if (!known.length) return null;
  const within = (key, least, most, whole) => {
    const text = asked.get(key)?.trim();
    const value = Number(text || NaN);
    if (value >= least && value <= most && (!whole || Number.isInteger(value))) state[key] = value;
  };
  if (asked.has("text")) state.text = asked.get("text").slice(0, MAX_TEXT);
  within("seed", 0, MAX_SEED, true);
  within("x", -1, 1);
  within("y", -1, 1);
  within("mix", 0, 1);
  for (const key of ["from", "to"]) within(key, 0, SHAPE.classes - 1, true);
  return state;
}

export function hashOf(state) {
  return `#${new URLSearchParams(
    Object.entries(state).map(([key, value]) => [key, String(value)]),
  )}`;
}

let linkTimer = 0;

/** Put the state into the address, soon. */
export function keepInLink(state) {
  clearTimeout(linkTimer);
  linkTimer = setTimeout(() => {
    try {
      history.replaceState(null, "", hashOf(state));
    } catch {
      // In a frame of another page the address is not ours. "Copy link" works from the state.
    }
  }, LINK_PAUSE_MS);
}
