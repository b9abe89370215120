/** The page of `cgan label-errors`. */
import { inDigits, piece } from "./pieces.js";
import { classNamer, rowsTable } from "./sections.js";

const doubted = JSON.parse(document.querySelector("#page-data").textContent).labels;

function showDoubted() {
  const nameOf = classNamer(doubted.class_names);
  const columns = [
    ["looks like", (row) => nameOf(row.suggested)],
    ["by a margin of", (row) => inDigits(row.confidence, 3)],
  ];
  document.querySelector("#labels-found").append(
    piece(
      "p",
      {},
      `${inDigits(doubted.count)} of ${
        inDigits(doubted.of)
      } rows, the most doubtful first. ${doubted.how}`,
    ),
    doubted.count
      ? rowsTable("Lines are those of the CSV; the header is line 1", doubted, nameOf, columns)
      : piece("p", {}, "None."),
    doubted.rows.length < doubted.count
      ? piece(
        "p",
        { class: "note" },
        `The first ${inDigits(doubted.rows.length)} are shown; the CSV beside this page has all.`,
      )
      : "",
  );
}

showDoubted();
