/** The second half of a run's page: the previews of the training, and links to folded parts. */
import { RUN } from "./page_data.js";

function showPreviews(slider) {
  const image = document.querySelector(".previews img");
  const caption = document.querySelector(".previews figcaption");
  const show = () => {
    const { step, src } = RUN.previews[slider.value];
    image.src = src;
    image.alt = caption.textContent = `Drawings at step ${step.toLocaleString("en")}`;
    slider.setAttribute("aria-valuetext", `step ${step}`);
  };
  slider.addEventListener("input", show);
  show();
}

if (RUN.previews.length) showPreviews(document.querySelector(".previews input"));

document.addEventListener("click", ({ target }) => {
  const link = target.closest("a[href^='#']");
  if (link) document.querySelector(link.hash).open = true;
});
