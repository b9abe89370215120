/** Which classes a text asks for; the same rules as in cgan/serving. What is no class is told, the rest read. */
import { RUN, SHAPE } from "./generator.js";

export const MOST_DRAWINGS = 200;
const SHOWN_NAMES = 12;

const given = RUN.class_names;
const named = Array.isArray(given) && given.length === SHAPE.classes;
const few = SHAPE.classes <= 10;

/** What each class is called, by its label. */
export const NAMES = named ? given : Array.from({ length: SHAPE.classes }, (_, i) => String(i));
/** Whether digits alone are a text: 2024. */
export const DIGITS = few && NAMES.every((name, label) => name === String(label));

const LABELS = grouped();
// Where a 7 is the name of another class than of number 7, a number would be a riddle.
const NUMBERED = NAMES.every((name, label) => !/^\d+$/.test(name) || Number(name) === label);
const MOST_WORDS = Math.max(...NAMES.map((name) => name.trim().split(/\s+/).length));

/** @returns {{labels: number[], fault: string}} the classes read, and in words what is none ("" if all are) */
export function parseText(text) {
  const labels = [];
  let fault = "";
  const strange = (word, place) => fault ||= stranger(word, place);
  if (DIGITS) {
    // By code points, as Python counts them.
    [...text].forEach((character, i) => {
      if (/^[\s,]$/.test(character)) return;
      const label = labelOf(character);
      label === null ? strange(character, `character ${i + 1}`) : labels.push(label);
    });
  } else {
    for (const part of text.split(",")) labels.push(...readWords(part, strange));
  }
  if (!labels.length) fault ||= "Nothing to draw yet.";
  if (labels.length > MOST_DRAWINGS) {
    fault ||= `The first ${MOST_DRAWINGS} of ${labels.length} are drawn; a page holds no more.`;
  }
  return { labels: labels.slice(0, MOST_DRAWINGS), fault };
}

/** The text that asks for these classes. */
export function textOf(labels) {
  return labels.map((label) => NAMES[label]).join(DIGITS ? "" : ", ");
}

/** In words, which classes there are: it stands beside what is told. */
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

/** From each place the longest name that stands there. */
function readWords(part, strange) {
  const words = part.split(/\s+/).filter(Boolean);
  const labels = [];
  for (let start = 0; start < words.length;) {
    let length = Math.min(MOST_WORDS, words.length - start);
    let label = null;
    for (; length > 0; length--) {
      label = labelOf(words.slice(start, start + length).join(" "));
      if (label !== null) break;
    }
    if (label !== null) labels.push(label);
    else labels.push(...spelled(words[start], strange));
    start += Math.max(1, length);
  }
  return labels;
}

/** A word of single characters that are classes: HELLO. */
function spelled(word, strange) {
  const labels = named ? [...word].map((one) => few ? labelOf(one) : byName(one)) : [null];
  if (!labels.includes(null)) return labels;
  strange(word);
  return [];
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
  return alike.find((label) => NAMES[label] === word) ?? (alike.length === 1 ? alike[0] : null);
}

function stranger(word, place) {
  const shown = `“${[...word].slice(0, 40).join("")}”`;
  const alike = LABELS.get(foldedName(word)) ?? [];
  if (alike.length > 1) {
    return `${shown} is not a class: is it “${NAMES[alike[0]]}” or “${NAMES[alike[1]]}”?`;
  }
  return `${shown}${place ? `, ${place},` : ""} is not a class.`;
}

function foldedName(name) {
  return name.trim().replace(/\s+/g, " ").toLowerCase();
}

function grouped() {
  const labels = new Map();
  NAMES.forEach((name, i) =>
    labels.set(foldedName(name), [...(labels.get(foldedName(name)) ?? []), i])
  );
  return labels;
}
