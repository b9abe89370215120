/** The form of a service that draws on its machine: the picture appears in the page, not in place of it. */
function askInPage(form) {
  const [picture, said] = ["ask-picture", "ask-said"].map((id) => document.getElementById(id));
  const ask = () => {
    said.textContent = "Drawing …";
    picture.src = `draw?${new URLSearchParams(new FormData(form))}`;
  };
  picture.addEventListener("load", () => said.textContent = "");
  picture.addEventListener("error", () => {
    said.textContent =
      "That cannot be drawn. The classes and the limits stand below; the address itself says why.";
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  document.querySelectorAll(".play-chips button").forEach((chip) =>
    chip.addEventListener("click", () => {
      form.elements.text.value = chip.textContent;
      ask();
    })
  );
  ask();
}

askInPage(document.getElementById("ask"));
