/** The drawings of a page, of one class or of all. */
document.getElementById("gallery-class").addEventListener("change", ({ target }) => {
  for (const tile of document.querySelectorAll("#gallery-drawings .tile")) {
    tile.hidden = target.value !== "" && tile.dataset.label !== target.value;
  }
});
