/** The previews of a training, as a film: it plays by itself once it is in sight. */
import { RUN } from "./page_data.js";

function playPreviews(place) {
  if (!place) return; // a training that made none
  const frames = RUN.previews;
  const parts = ["img", "figcaption", "input", "button"].map((name) => place.querySelector(name));
  const [image, caption, slider, play] = parts;
  const last = frames.length - 1;
  slider.max = last;

  const go = (index) => {
    const { step, src } = frames[index];
    slider.value = index;
    slider.setAttribute("aria-valuetext", `step ${step}`);
    image.src = src;
    caption.textContent = `step ${step.toLocaleString("en")}`;
    image.alt = `Drawings at ${caption.textContent}`;
  };
  let timer = 0;
  const run = (running) => {
    clearInterval(timer);
    timer = 0;
    play.textContent = running ? "Stop" : "Play";
    play.setAttribute("aria-pressed", String(running));
    if (!running) return;
    go(0);
    const next = () => slider.value < last ? go(Number(slider.value) + 1) : run(false);
    timer = setInterval(next, 600);
  };
  play.addEventListener("click", () => run(!timer));
  slider.addEventListener("input", () => {
    run(false);
    go(Number(slider.value));
  });
  go(last);
  const inSight = new IntersectionObserver((entries) => {
    if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
    inSight.disconnect();
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) run(true);
  }, { threshold: 0.5 });
  inSight.observe(place);
}

playPreviews(document.querySelector(".scrubber"));
