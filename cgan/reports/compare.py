"""`cgan compare`: the pages of two runs become one."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from cgan.errors import CganError, printable
from cgan.files import write_text
from cgan.page.compare_page import Run, compare_page, read_page
from cgan.project import RUN_PAGE, home
from cgan.registry.client import open_registry
from cgan.reports.recorded_run import find_run_id
from cgan.run.lifecycle import PATCH, SOURCE
from cgan.store.address import reason_of

MOST_SHOWN = 100  # characters of a title


def compare(a: str, b: str, out: Path, say: Callable[[str], None], markdown: bool = False) -> None:
    """Write the page of two runs, and Markdown beside it. Each is an id, name or alias in MLflow, a page, or
    a project's folder."""
    if out.suffix == ".md" or not out.name:
        raise CganError(f"--out {out} is the page: expected a name that ends in .html.")
    text_path = out.with_suffix(".md")
    one, other = find_page(a), find_page(b)
    page, text, why = compare_page(one, other, home())
    write_text(out, page)
    if why:
        say(printable(why))
    titles = printable(f"{one['title'][:MOST_SHOWN]} and {other['title'][:MOST_SHOWN]}")
    say(f"{out}: {titles}. It opens in any browser, offline.")
    if markdown:
        write_text(text_path, text)
        say(f"{text_path}: the same for a pull request.")


def find_page(what: str) -> Run:
    """The data of a run's page, which MLflow keeps too; from there with the changes that the commit lacks.

    Raises CganError where there is none.
    """
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
        run = read_page(Path(found))
        with contextlib.suppress(Exception):  # few runs have one
            patch = registry.client.download_artifacts(run_id, f"{SOURCE}/{PATCH}", folder)
            run["patch"] = Path(patch).read_bytes()
        return run
