/** Which classes a text asks for; the rules of cgan/drawing/class_names.py. What is no class is reported, the rest read. */
import { listOf, RUN, SHAPE } from "./page_data.js";

export const MOST_DRAWINGS = 200;
const SHOWN_NAMES = 12;

const named = RUN.class_names !== null;
const few = SHAPE.classes <= 10;

/** What each class is called, by its label. */
export const NAMES = RUN.class_names ?? listOf(SHAPE.classes, String);
/** Whether digits alone are a text: 2024. */
export const DIGITS = few && NAMES.every((name, label) => name === String(label));

// What Python takes for space: Unicode's, and four control characters.
const SPACES = new RegExp(`[\\p{White_Space}${String.fromCharCode(28, 29, 30, 31)}]+`, "gu");
const SPACED = NAMES.map(spaced);
const LABELS = Map.groupBy(SPACED.keys(), (label) => foldedName(SPACED[label]));
const NUMBERS = SPACED.filter((name) => /^[0-9]{1,9}$/.test(name));
const SPELLED = NUMBERS.every((name) => name.length === 1); // else 60 is not 6 and 0
// Where a 7 is the name of another class, or 12 are two names, a number would be ambiguous.
const NUMBERED = NUMBERS.every((name) => SPACED[Number(name)] === name) &&
  (few || !NUMBERS.length || !SPELLED);

/** @returns {{labels: number[], fault: string}} the classes read, and in words what is none ("" if all are) */
export function parseText(text) {
  const labels = [];
  let fault = "";
  const report = (words) => fault ||= words;
  if (DIGITS) {
    // By code points, as Python counts them.
    [...text].forEach((character, i) => {
      if (character === "," || !spaced(character)) return;
      const label = labelOf(character);
      if (label === null) report(strangerText(character, `character ${i + 1}`));
      else labels.push(label);
    });
  } else {
    for (const part of text.split(",")) labels.push(...readPart(spaced(part), report));
  }
  if (!labels.length) fault ||= "Nothing to draw yet.";
  if (labels.length > MOST_DRAWINGS) {
    fault ||=
      `Only the first ${MOST_DRAWINGS} of ${labels.length} are drawn, which is the most that the page shows.`;
  }
  return { labels: labels.slice(0, MOST_DRAWINGS), fault };
}

/** In words, which classes there are: it stands beside the report. */
export function valid() {
  const last = SHAPE.classes - 1;
  if (DIGITS) return `The classes are 0 to ${last}.`;
  if (!named) return `The classes are 0 to ${last}; put commas or spaces between them.`;
  const more = NAMES.length > SHOWN_NAMES
    ? `, … (${NAMES.length.toLocaleString("en")} in all)`
    : "";
  const numbers = NUMBERED ? `, or their numbers, 0 to ${last}` : "";
  return `The classes are ${
    NAMES.slice(0, SHOWN_NAMES).join(", ")
  }${more}${numbers}; put commas between them.`;
}

/** What stands between commas: one class, or one or several a word. */
function readPart(part, report) {
  if (!part) return [];
  const label = labelOf(part);
  if (label !== null) return [label];
  return part.split(" ").flatMap((word) => {
    const labels = readWord(word);
    if (!labels.length) report(strangerText(word));
    return labels;
  });
}

/** A name, a number, or single characters that are classes (HELLO); else nothing. */
function readWord(word) {
  const label = labelOf(word);
  if (label !== null) return [label];
  if (!SPELLED && /^[0-9]+$/.test(word)) return [];
  const labels = [...word].map((one) => few ? labelOf(one) : byName(one));
  return labels.includes(null) ? [] : labels;
}

/** One class, by name or number; up to 10 classes a number has one digit, since "07" is two of them. */
function labelOf(word) {
  const label = byName(word);
  const short = few ? 1 : 9;
  if (label === null && NUMBERED && /^[0-9]+$/.test(word) && word.length <= short) {
    return Number(word) < SHAPE.classes ? Number(word) : null;
  }
  return label;
}

function byName(word) {
  const alike = LABELS.get(foldedName(word)) ?? [];
  return alike.findLast((label) => SPACED[label] === word) ??
    (alike.length === 1 ? alike[0] : null);
}

function strangerText(word, place) {
  const shown = `“${[...word].slice(0, 40).join("")}”`;
  const alike = LABELS.get(foldedName(word)) ?? [];
  if (alike.length > 1) {
    return `${shown} is not a class: is it “${NAMES[alike[0]]}” or “${NAMES[alike[1]]}”?`;
  }
  return `${shown}${place ? `, ${place},` : ""} is not a class.`;
}

/** A name as Python's `casefold` makes it alike in capitals or not, character by character. */
function foldedName(name) {
  return [...name].map((one) => one === "ı" ? one : one.toLowerCase().toUpperCase().toLowerCase())
    .join("");
}

/** One space for what Python takes for space, and none around the text. */
function spaced(text) {
  return text.replace(SPACES, " ").replace(/^ | $/g, "");
}
