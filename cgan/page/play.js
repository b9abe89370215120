import { RUN } from "./generator.js";

document.querySelector("#play h1").title = RUN.architecture.kind;
