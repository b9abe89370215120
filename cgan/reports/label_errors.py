"""`cgan label-errors`: which labels of the CSV look wrong to judges that have not seen them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cgan.data.dataset import Dataset
from cgan.errors import CganError
from cgan.files import write_text
from cgan.model.hardware import choose_hardware, compute_deterministically
from cgan.page.assemble import document
from cgan.page.data_facts import Rows, suspects_facts
from cgan.params.sections import Params
from cgan.quality.judge import Progress
from cgan.quality.label_errors import calibrated, label_errors, out_of_fold

SHOWN = 400  # on the page
COLUMNS = ("row", "line", "label", "suggested", "confidence", "file")  # a file: of pictures only


def find_label_errors(
    params: Params, folds: int, out: Path, say: Callable[[str], None], progress: Progress
) -> None:
    """Write a CSV of the suspects of data/raw/train.csv, the most doubtful first, and a page beside it."""
    if out.suffix != ".csv":
        raise CganError(f"--out {out}: expected a name that ends in .csv.")
    rows = Rows.read()
    data = Dataset(torch.from_numpy(rows.images), torch.from_numpy(rows.labels), rows.metadata)
    compute_deterministically()
    hardware = choose_hardware("auto", "auto")
    say(f"Training {folds} judges, each on {folds - 1} parts of {folds} of {len(data):,} images.")
    probabilities = out_of_fold(data, params.train_judge, folds, hardware, progress)
    found = label_errors(calibrated(probabilities, rows.labels), rows.labels)
    table = pd.DataFrame([rows.place(index) for index in found.rows], columns=list(COLUMNS))
    names = np.array(data.class_names)
    table["label"], table["suggested"] = names[rows.labels[found.rows]], names[found.suggested]
    table["confidence"] = found.confidence
    write_text(out, table.to_csv(index=False, float_format="%.4f"))
    how = (
        f"{folds} class networks looked at rows that they had not been trained on, and confident learning "
        "(Northcutt et al., arXiv:1911.00068) compared what they see with the labels."
    )
    page = out.with_suffix(".html")
    html = document(
        "labels.html",
        (),
        {},
        how=how,
        count=len(found),
        of=len(data),
        names=data.class_names,
        suspects=suspects_facts(found.first(SHOWN), np.arange(len(data)), rows),
    )
    write_text(page, html)
    right = (probabilities.argmax(axis=1) == rows.labels).mean()
    say(
        f"{len(found):,} of {len(data):,} labels look wrong ({right:.2%} agree with the judges). "
        f"{out} lists them; {page} shows them."
    )
