"""The errors that a user can mend. Each message says where, what was expected, what was found and what to do;
`cgan.cli` and the stages print it without a traceback and exit with 1."""

import re

from cgan.base.text import printable


class CganError(Exception):
    """Base of every error that is the user's, the data's or the machine's, not ours."""

    def __str__(self) -> str:
        """One paragraph, of printable characters."""
        return printable(re.sub(r"\n{2,}", "\n", super().__str__()), keep="\n")


class ParamsError(CganError):
    """params.yaml cannot be used."""


class DataError(CganError):
    """The data cannot be had, or not be used."""


class ModelError(CganError):
    """A file of tensors cannot be used: a model, a checkpoint, a dataset."""


class TrainingError(CganError):
    """Training stopped itself: divergence, collapse, no memory."""


class TrackingError(CganError):
    """The tracking store is missing, away, or not usable."""


class Interrupted(Exception):  # noqa: N818 - no fault: somebody asked the training to stop
    """The training stopped as asked, with a checkpoint saved. It goes on when it is started again."""
