/** The drawings of a page: three rows of each class, or all of one. */
const gallery = document.getElementById("gallery-drawings");
document.getElementById("gallery-class").addEventListener("change", ({ target }) => {
  gallery.classList.toggle("of-one", target.value !== "");
  for (const figure of gallery.children) {
    figure.hidden = target.value !== "" && figure.dataset.label !== target.value;
  }
});
