/** A link to a folded part opens it: a click on it, or an address that ends with its id. */

function unfold(hash) {
  const part = document.getElementById(hash.slice(1));
  if (part instanceof HTMLDetailsElement) part.open = true;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#']");
  if (link) unfold(link.hash);
});
addEventListener("hashchange", () => unfold(location.hash));
unfold(location.hash);
