"""User errors. Every message says where, what was expected, what was found and what to do;
`cgan.cli` and the stages print it without a traceback and exit with 1."""

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

# What brings data and models that others made; DVC doesn't say how to begin.
DVC_PULL = "`dvc pull` (no remote yet? `dvc remote add --default storage ssh://host/folder`, docs/storage.md)"

PACKAGES = {  # what is imported of a distribution, where that has another name
    "nvidia-ml-py": "pynvml",
    "psycopg2-binary": "psycopg2",
    "ruamel.yaml": "ruamel",
    "scikit-learn": "sklearn",
}


def ensure_streams() -> None:
    """No output may end the process: a closed stdout or stderr takes all and shows nothing, and a character
    that the locale lacks is shown as `?`."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def extras_with(module: str) -> list[str]:
    """The extras of this package (`pip install 'cgan[pipeline]'`) that bring a module."""
    import importlib.metadata

    extras, package = [], module.partition(".")[0]
    installed = importlib.metadata.distributions(name="cgan")
    for requirement in [line for distribution in installed for line in distribution.requires or []]:
        match = re.match(r"([\w.-]+).*\bextra == ['\"]([\w-]+)['\"]", requirement)
        if match and package == PACKAGES.get(match[1].lower(), match[1].lower().replace("-", "_")):
            extras.append(match[2])
    return extras


def printable(text: str, keep: str = "") -> str:
    """Characters that cannot be shown as escapes: what quotes a file must not command the terminal."""
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def percent(share: float, digits: int = 1) -> str:
    """`98.6 %`: how a share is written everywhere."""
    return f"{100 * share:.{digits}f} %"


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def listed(names: Sequence[object], most: int = 5) -> str:
    """`a, b, c and 12 more`, of names as they are in files."""
    shown = ", ".join(str(name)[:200].replace("\n", "\\n") for name in names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


class CganError(Exception):
    """Base of every error that is the user's, the data's or the machine's, not ours."""

    def __str__(self) -> str:
        """One paragraph, of printable characters."""
        return printable(re.sub(r"\n{2,}", "\n", super().__str__()), keep="\n")


@contextlib.contextmanager
def naming_keywords() -> Iterator[None]:
    """Errors inside name keywords, which a notebook gives, where those of a stage name params."""
    try:
        yield
    except CganError as error:
        error.args = (keywords_for_params(str(error.args[0])),)
        raise


def keywords_for_params(text: str) -> str:
    """`Set `data.fit: pad` in params.yaml` → `Set `fit="pad"``."""
    text = re.sub(r",? in (the section `\w+` of )?params\.yaml,?", "", text)
    text = re.sub(
        r"`(?:(?:data|validate|preprocess)\.)?([a-z_]+): ([\w-]+)`",
        lambda found: f"`{found[1]}={found[2] if found[2].isdecimal() else json.dumps(found[2])}`",
        text,
    )
    text = re.sub(r"`(?:data|validate|preprocess)\.(\w+)`", r"`\1`", text)
    return text.replace("`holdout_fraction`", "`fraction`")


class ParamsError(CganError):
    """params.yaml cannot be used."""


class DataError(CganError):
    """The data cannot be used."""


class SourceError(CganError):
    """The data could not be obtained: download, credentials, archive."""


class ModelError(CganError):
    """A file of tensors cannot be used: a model, a checkpoint, a dataset."""


class TrainingError(CganError):
    """Training stopped itself: divergence, collapse, no memory."""


class TrackingError(CganError):
    """The tracking store cannot be used and the params ask to fail then."""


class Interrupted(Exception):  # noqa: N818 - no fault: somebody asked the training to stop
    """The training stopped as asked, with a checkpoint saved. It goes on when it is started again."""
