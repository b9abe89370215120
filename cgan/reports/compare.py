"""`cgan compare`: how two runs differ, out of what their pages hold."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from cgan.errors import CganError, printable
from cgan.files import write_text
from cgan.project import RUN_PAGE
from cgan.registry.client import open_registry
from cgan.reports.compare_facts import Run, compare_runs, read_page
from cgan.reports.recorded_run import find_run_id
from cgan.tracking.store import reason_of

MARKDOWN = Path("reports/compare.md")


def compare(a: str, b: str, say: Callable[[str], None], markdown: bool = False) -> None:
    """Show how two runs differ, or write it to MARKDOWN. Each is an id, name or alias in MLflow, a page, or a
    project's folder."""
    text = printable(compare_runs(find_page(a), find_page(b)), keep="\n")
    if markdown:
        write_text(MARKDOWN, text)
        say(f"{MARKDOWN}: for a pull request.")
    else:
        Console().print(Markdown(text))


def find_page(what: str) -> Run:
    """The data of a run's page, which MLflow keeps too. Raises CganError where there is none."""
    path = Path(what)
    if path.is_dir():
        inside = [path / RUN_PAGE, path / RUN_PAGE.name]
        path = next((page for page in inside if page.is_file()), inside[0])
    if path.suffix == ".html" or path.is_file():
        return read_page(path)
    run_id = find_run_id(what)
    with open_registry() as registry, tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        try:
            found = registry.client.download_artifacts(run_id, RUN_PAGE.name, folder)
        except Exception as error:  # the stores let through what their clients raise
            raise CganError(
                f"run {run_id} has no page in {registry.shown} ({reason_of(error)}): the stage "
                "record has not run for it. `dvc repro` records the run at hand."
            ) from None
        return read_page(Path(found))
