/** What the page holds for its scripts, and how it is read. */

export const RUN = JSON.parse(document.getElementById("page-data").textContent);
export const SHAPE = RUN.architecture;

export function listOf(count, make) {
  return Array.from({ length: count }, (_, index) => make(index));
}

/** What base64 stands for. */
export function bytesOf(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
