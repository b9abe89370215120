"""User errors. Every message says where, what was expected, what was found and what to do;
`cgan.cli` and the stages print it without a traceback and exit with 1."""

import contextlib
import json
import re
from collections.abc import Iterator

from cgan.text import printable

# What brings data and models that others made; DVC doesn't say how to begin.
DVC_PULL = "`dvc pull` (no remote yet? `dvc remote add --default storage ssh://host/folder`, docs/storage.md)"


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
