"""`cgan label-errors`: which labels look wrong to judges that have not seen them. cleanlab's rule, on the
probabilities that judges give to images of a fold on which they were not trained."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from cleanlab.filter import find_label_issues
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.data.dataset import Dataset
from cgan.errors import CganError, DataError, percent
from cgan.evidence.rounds import units_of
from cgan.files import require_writable, write_text
from cgan.markdown import in_spreadsheet
from cgan.model.hardware import Hardware, choose_hardware, compute_deterministically
from cgan.page.assemble import document
from cgan.page.data_facts import Rows, suspects_facts
from cgan.params.sections import JudgeParams, Params
from cgan.quality.judge import Progress, look, silent, train_judge
from cgan.quality.label_errors import Labels, Suspects, doubtful_labels
from cgan.stages import runner

SHOWN = 400  # on the page
COLUMNS = ("row", "line", "label", "suggested", "confidence", "file")  # a file: of pictures only
# Of cleanlab's filters that which found most of exchanged labels without calling many right ones wrong
# (docs/log.md).
FILTER = "prune_by_class"
TEMPERATURES = np.geomspace(0.2, 2.0, 47)


def find_label_errors(params: Params, folds: int, out: Path, say: Callable[[str], None]) -> None:
    """Write a CSV of the suspects of the data, the most doubtful first, and a page beside it."""
    if out.suffix != ".csv":
        raise CganError(f"--out {out}: expected a file name that ends in .csv.")
    require_writable(out)
    rows = Rows.read()
    labels = rows.labels.numpy()
    compute_deterministically()
    hardware = choose_hardware(params.train.device, "auto")
    say(f"Training {folds} judges, each on {folds - 1} of {folds} parts of {len(rows):,} images.")
    progress = functools.partial(runner.progress, say=say)
    logits = out_of_fold(rows, params.train_judge, folds, hardware, progress)
    suspects = label_errors(logits, labels, units_of(rows).numpy())
    names = np.array([in_spreadsheet(name) for name in rows.class_names])
    table = pd.DataFrame([rows.place(index) for index in suspects.rows], columns=list(COLUMNS))
    table["label"] = names[labels[suspects.rows]]
    table["suggested"], table["confidence"] = names[suspects.suggested], suspects.confidence
    table["file"] = table["file"].map(
        functools.partial(in_spreadsheet, before="./"), na_action="ignore"
    )
    write_text(out, table.to_csv(index=False, float_format="%.4f"))
    how = (
        f"{folds} classifiers looked at rows that they had not been trained on, and cleanlab compared "
        "what they see with the labels (confident learning: Northcutt et al., arXiv:1911.00068)."
    )
    page = out.with_suffix(".html")
    html = document(
        "labels.html",
        (),
        {},
        how=how,
        count=len(suspects),
        of=len(rows),
        names=rows.class_names,
        suspects=suspects_facts(suspects.first(SHOWN), np.arange(len(rows)), rows),
    )
    write_text(page, html)
    right = float((logits.argmax(dim=1) == rows.labels).double().mean())
    say(
        f"{len(suspects):,} of {len(rows):,} labels look wrong ({percent(right)} agree with the judges). "
        f"{out} lists them; {page} shows them."
    )


def label_errors(logits: Tensor, labels: Labels, groups: Labels | None = None) -> Suspects:
    """By confident learning. `logits` [N, classes]: of judges that have not seen the labels, int64 [N].

    A judge learns smoothed labels and is never quite sure, which hides errors from cleanlab. So its
    probabilities are first made as sure as they are right, with the temperature at which the labels are
    likeliest (Guo et al., On Calibration of Modern Neural Networks, ICML 2017).
    """
    target = torch.from_numpy(labels)
    best = min(TEMPERATURES, key=lambda t: float(F.cross_entropy(logits / t, target)))
    probabilities = (logits / best).softmax(dim=1).numpy()
    # In this process: cleanlab would fork one with torch's threads in it.
    marked = find_label_issues(labels, probabilities, filter_by=FILTER, n_jobs=1)
    return doubtful_labels(probabilities, labels, marked, groups)


def out_of_fold(
    data: Dataset, params: JudgeParams, count: int, hardware: Hardware, progress: Progress = silent
) -> Tensor:
    """Logits float64 [N, classes], of judges trained by `params` on the other `count` - 1 folds of `data`.

    The folds are stratified, and equal images lie in one, as do those of a group. Raises DataError where a
    class has too few of them: some judge would never see it.
    """
    labels, groups = data.labels.numpy(), units_of(data).numpy()
    for label in np.unique(labels):
        if (distinct := len(np.unique(groups[labels == label]))) < count:
            raise DataError(
                f"class {data.class_names[label]}: expected at least {count} distinct images (or groups of "
                f"images), one for each fold; found {distinct}. Add images of this class, or set fewer "
                "`--folds` (at least 2)."
            )
    logits = torch.zeros(len(labels), data.classes, dtype=torch.float64)
    parts = StratifiedGroupKFold(count, shuffle=True, random_state=params.seed)
    for number, (outside, inside) in enumerate(parts.split(labels, labels, groups)):
        learnt = data.at(outside)
        what, batch = f"judge {number + 1} of {count}", min(params.batch_size, len(learnt))
        bar = functools.partial(progress, what, images_a_step=batch)
        judge = train_judge(learnt, params, hardware.device, hardware.precision, bar)
        logits[inside] = look(judge, data.images[inside]).logits.double()
    return logits
