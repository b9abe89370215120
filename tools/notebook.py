"""Runs docs/notebook.ipynb from top to bottom and stores what its cells show: `python tools/notebook.py`.

A cell is run as a notebook would: what its last expression is worth is shown, as a picture where it is one.
So nobody needs Jupyter to keep the page true. `--check` writes nothing and prints what cells show, as JSON.
"""

import ast
import base64
import json
import sys
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


def main() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, start=1):
        shown = run("".join(cell["source"]), names)
        cell["execution_count"] = number
        result = {"output_type": "execute_result", "execution_count": number, "metadata": {}}
        cell["outputs"] = [] if shown is None else [{**result, "data": shown}]
    if "--check" in sys.argv:
        print(json.dumps([cell["outputs"] for cell in cells]))
    else:
        text = json.dumps(notebook, indent=1, ensure_ascii=False)
        NOTEBOOK.write_text(text + "\n", encoding="utf-8")


def run(code: str, names: dict[str, Any]) -> dict[str, str] | None:
    """Run a cell → what it shows by MIME type; nothing where its last line is no expression."""
    tree = ast.parse(code)
    last = tree.body[-1]
    if not isinstance(last, ast.Expr):
        exec(compile(tree, "cell", "exec"), names)
        return None
    exec(compile(ast.Module(tree.body[:-1], []), "cell", "exec"), names)
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    if value is None:
        return None
    if hasattr(value, "_repr_png_"):
        return {"image/png": base64.b64encode(value._repr_png_()).decode()}
    if hasattr(value, "_repr_html_"):
        return {"text/html": value._repr_html_()}
    return {"text/plain": repr(value)}


if __name__ == "__main__":
    main()
