/** Which classes a text asks for; the rules of cgan/drawing/class_names.py. What is no class is told, the rest read. */
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

// What Python takes for space: Unicode's, and four control characters.
const SPACES = new RegExp(`[\\p{White_Space}${String.fromCharCode(28, 29, 30, 31)}]+`, "gu");
const SPACED = NAMES.map(spaced);
const LABELS = grouped();
// Where a 7 is the name of another class than of number 7, a number would be ambiguous.
const NUMBERED = SPACED.every((name, label) =>
  !/^[0-9]{1,9}$/.test(name) || Number(name) === label
);
const MOST_WORDS = Math.max(...SPACED.map((name) => name.split(" ").length));

/** @returns {{labels: number[], fault: string}} the classes read, and in words what is none ("" if all are) */
export function parseText(text) {
  const labels = [];
  let fault = "";
  const tell = (words) => fault ||= words;
  if (DIGITS) {
    // By code points, as Python counts them.
    [...text].forEach((character, i) => {
      if (character === "," || !spaced(character)) return;
      const label = labelOf(character);
      if (label === null) tell(strangerText(character, `character ${i + 1}`));
      else labels.push(label);
    });
  } else {
    for (const part of text.split(",")) labels.push(...readPart(spaced(part), tell));
  }
  if (!labels.length) fault ||= "Nothing to draw yet.";
  if (labels.length > MOST_DRAWINGS) {
    fault ||= `The first ${MOST_DRAWINGS} of ${labels.length} are drawn; a page holds no more.`;
  }
  return { labels: labels.slice(0, MOST_DRAWINGS), fault };
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

/** What stands between commas: one class, or several, if there is one way to read them. */
function readPart(part, tell) {
  const label = part ? labelOf(part) : null;
  if (!part || label !== null) return part ? [label] : [];
  const words = part.split(" ");
  const read = (start, end) => readWords(words.slice(start, end));
  // From the end: in how many ways the words from here on can be read, and where the first class ends.
  const ways = [...words.map(() => 0), 1];
  const ends = [];
  for (let start = words.length - 1; start >= 0; start--) {
    for (let end = start + 1; end <= Math.min(start + MOST_WORDS, words.length); end++) {
      if (!ways[end] || !read(start, end).length) continue;
      ways[start] = Math.min(2, ways[start] + ways[end]);
      ends[start] = end;
    }
  }
  if (!ways[0]) return readWhatIsKnown(words, tell);
  if (ways[0] > 1) {
    const shown = [...part].slice(0, 80).join("");
    tell(`“${shown}” can be read as several lists of classes. Put commas between them.`);
    return [];
  }
  const labels = [];
  for (let start = 0; start < words.length; start = ends[start]) {
    labels.push(...read(start, ends[start]));
  }
  return labels;
}

/** Of words that are no list of classes: from each place the longest name that stands there. */
function readWhatIsKnown(words, tell) {
  const labels = [];
  for (let start = 0; start < words.length;) {
    let end = Math.min(start + MOST_WORDS, words.length);
    while (end > start && !readWords(words.slice(start, end)).length) end--;
    if (end === start) tell(strangerText(words[start]));
    else labels.push(...readWords(words.slice(start, end)));
    start = Math.max(end, start + 1);
  }
  return labels;
}

/** A name, a number, or one word of single characters that are classes (HELLO); else nothing. */
function readWords(words) {
  const label = labelOf(words.join(" "));
  if (label !== null) return [label];
  if (words.length > 1 || !named) return [];
  const labels = [...words[0]].map((one) => few ? labelOf(one) : byName(one));
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

function grouped() {
  const labels = new Map();
  SPACED.forEach((name, i) =>
    labels.set(foldedName(name), [...(labels.get(foldedName(name)) ?? []), i])
  );
  return labels;
}
