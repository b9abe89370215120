/** The generator's forward pass, from the weights that travel in the page. */
export const RUN = JSON.parse(document.getElementById("data").textContent);
