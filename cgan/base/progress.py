"""Progress of what takes long: a bar in a terminal or a notebook, or none."""

import sys
import warnings
from collections.abc import Iterator
from typing import Protocol


class Progress(Protocol):
    """Yields the steps, and may show how far they are."""

    def __call__(self, what: str, steps: range, images_per_step: int = 0) -> Iterator[int]: ...


def silent(what: str, steps: range, images_per_step: int = 0) -> Iterator[int]:
    """The Progress that shows nothing."""
    return iter(steps)


def progress_bar(what: str, steps: range, images_per_step: int = 0) -> Iterator[int]:
    """Yield the steps beside a bar, in a terminal or a notebook; in neither, without one."""
    with warnings.catch_warnings(action="ignore"):  # without ipywidgets there is a bar of text
        from tqdm.auto import tqdm
    each = images_per_step or 1
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    with tqdm(
        desc=what,
        total=steps.stop * each,
        initial=steps.start * each,
        unit=" images" if images_per_step else " steps",
        unit_scale=True,
        leave=False,
        disable=not (hasattr(shell, "kernel") or sys.stderr.isatty()),
    ) as bar:
        for step in steps:
            yield step
            bar.update(each)
