/** The film of a training: it plays by itself when it is seen. Of two runs, both go by step. */

const PAGE = JSON.parse(document.getElementById("page-data").textContent);
/** The run of the page, or the two that are compared. */
export const FILMED = PAGE.run ? [PAGE.run] : PAGE.compare.runs;

function playFilm(place) {
  const films = FILMED.map(({ previews }, n) => ({
    frames: previews.filter(({ src }) => /^data:image\/(png|webp);base64,[\w+/=]*$/.test(src)),
    name: FILMED.length > 1 ? `${"AB"[n]}: ` : "",
    image: place.querySelectorAll("img")[n],
    caption: place.querySelectorAll("figcaption")[n],
  }));
  const steps = [...new Set(films.flatMap(({ frames }) => frames.map(({ step }) => step)))];
  steps.sort((a, b) => a - b);
  const [slider, play] = [place.querySelector("input"), place.querySelector("button")];
  const last = Math.max(0, steps.length - 1);
  slider.max = last;

  const go = (index) => {
    slider.value = index;
    slider.setAttribute("aria-valuetext", `step ${steps[index]}`);
    for (const { frames, name, image, caption } of films) {
      const frame = frames.findLast(({ step }) => step <= steps[index]);
      if (!frame) continue;
      image.src = frame.src;
      caption.textContent = `${name}step ${frame.step.toLocaleString("en")}`;
      image.alt = `Drawings at ${caption.textContent}`;
    }
  };
  let timer = 0;
  const run = (running) => {
    clearInterval(timer);
    timer = 0;
    play.textContent = running ? "Stop" : "Play";
    play.setAttribute("aria-pressed", String(running));
    if (!running) return;
    go(0);
    timer = setInterval(() => {
      if (Number(slider.value) < last) go(Number(slider.value) + 1);
      else run(false);
    }, 600);
  };
  play.addEventListener("click", () => run(!timer));
  slider.addEventListener("input", () => {
    run(false);
    go(Number(slider.value));
  });
  if (!steps.length) return;
  go(last);
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
    seen.disconnect();
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) run(true);
  }, { threshold: 0.5 });
  seen.observe(place);
}

document.querySelectorAll(".scrubber").forEach(playFilm);
