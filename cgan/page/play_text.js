/** Which classes a text asks for, by the table that Python made (cgan/drawing/class_names.py). What is no class is reported, the rest read. */
import { RUN } from "./page_data.js";

export const MOST_DRAWINGS = 200;

/** What each class is called, by its label. */
export const NAMES = RUN.names;

const LABELS = new Map(Object.entries(RUN.labels));
const labelOf = (word) => LABELS.get(word) ?? LABELS.get(word.toLowerCase());

/** @returns {{labels: number[], fault: string}} the classes read, and in words what is none ("" if all are) */
export function parseText(text) {
  const labels = [];
  let fault = "";
  for (const part of text.split(",")) {
    const words = part.split(/\s+/).filter(Boolean);
    const label = labelOf(words.join(" "));
    for (const word of label === undefined ? words : []) {
      const found = readWord(word);
      if (!found.length) fault ||= `“${word.slice(0, 40)}” is not a class.`;
      labels.push(...found);
    }
    if (label !== undefined) labels.push(label);
  }
  if (!labels.length) fault ||= "Nothing to draw yet.";
  if (labels.length > MOST_DRAWINGS) {
    fault ||= `Only the first ${MOST_DRAWINGS} of ${labels.length} are drawn.`;
  }
  return { labels: labels.slice(0, MOST_DRAWINGS), fault };
}

/** A name, a number, or single characters that are classes (HELLO, 2024); else nothing. */
function readWord(word) {
  const label = labelOf(word);
  if (label !== undefined) return [label];
  const labels = [...word].map(labelOf);
  const together = RUN.joinsDigits || !/[0-9]/.test(word);
  return together && !labels.includes(undefined) ? labels : [];
}
