/** The drawings of a page, of one class or of all. */
function filterGallery(choice) {
  const tiles = document.querySelectorAll("#gallery-drawings .tile");
  const show = () => {
    for (const tile of tiles) {
      tile.hidden = choice.value !== "" && tile.dataset.label !== choice.value;
    }
    const shown = [...tiles].filter((tile) => !tile.hidden).length;
    document.getElementById("gallery-count").textContent = `${shown} drawings`;
  };
  choice.addEventListener("change", show);
  show();
}

filterGallery(document.getElementById("gallery-class"));
