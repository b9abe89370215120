"""A report of `cgan evidence` or `cgan sharing` as files, in the terminal, and in the run in MLflow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cgan.errors import TrackingError
from cgan.files import write_text
from cgan.page.assemble import document
from cgan.pipeline.tracking.run import open_run, read_training
from cgan.project import TRAINING
from cgan.verdict import Report


def publish(
    report: Report,
    paths: tuple[Path, Path, Path],
    template: str,
    drawn: Path | None,
    say: Callable[[str], None],
    **shown: Any,
) -> None:
    """Write the report to `paths`, JSON, Markdown and a page of `template`, which also shows `shown`. Of
    `drawn`, a folder of somebody else's drawings, it has files of its own, so that what was found of the
    project's drawings stays."""
    if drawn:
        report.reasons.append(f"The drawings are those in {drawn}.")
        facts, text, page = (path.with_stem(f"{path.stem}-drawn") for path in paths)
    else:
        facts, text, page = paths
    report.write(facts, text)
    write_text(page, document(template, (), {}, report=report, **shown))
    report.say(say, page)
    if not TRAINING.is_file():
        return
    try:
        with open_run(read_training(TRAINING), f"cgan {paths[0].stem}") as run:
            run.log_files((facts, text, page))
    except TrackingError as error:
        say(f"WARNING: {error}")
