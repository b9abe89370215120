"""`cgan evidence`: does a classifier gain by the drawings? A report, and a fold of the run's page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cgan.data.csv_report import validated_params
from cgan.data.dataset import Dataset, image_digests, load_dataset
from cgan.data.sources import read
from cgan.errors import DataError
from cgan.files import read_json, write_text
from cgan.markdown import table
from cgan.model.hardware import choose_hardware, compute_deterministically
from cgan.page.assemble import rendered
from cgan.params.sections import Params
from cgan.project import EVIDENCE, EVIDENCE_PAGE, EVIDENCE_TEXT, RUN_PAGE, TEST_DATA, VALIDATION
from cgan.quality import evidence
from cgan.quality.evaluation import Inputs
from cgan.quality.judge import Progress
from cgan.registry.history import now
from cgan.tracking.runs import reopen
from cgan.verdict import Report

Table = tuple[str, list[str], list[list[Any]]]  # title, header, rows
MARK = '<details class="part" id="metrics">'  # on the run's page
FEW = 20  # images of a class to be tested on
LISTED = 60  # classes
SETS = {"real": "real images", "repeated": "real ones, repeated", "drawn": "real and drawn"}


def find_evidence(
    params: Params,
    per_class: int | None,
    believed: float,
    seeds: int,
    more: Path | None,
    say: Callable[[str], None],
    progress: Progress,
) -> None:
    """It is tested on the images of `more` that are not in the training part; else on the data's own test
    set, or the hold-out."""
    inputs = Inputs.load()
    compute_deterministically()
    hardware = choose_hardware("auto", "auto")
    training = inputs.training
    counts = torch.bincount(training.labels, minlength=training.classes)
    asked = evidence.missing(counts, per_class or evidence.default_per_class(counts))
    images, _ = evidence.fill(inputs.network, inputs.judge, asked, params.evaluate.seed, believed)
    if more:
        test, tested_on = unseen(more, params, training, say), str(more)
    elif TEST_DATA.is_file():  # empty where the source names no test set
        test, tested_on = load_dataset(TEST_DATA), "test set"
    else:
        test, tested_on = inputs.heldout, "hold-out"
    say(
        f"Training {6 * seeds} classifiers: {len(training):,} real images, without and with {len(asked):,} "
        f"more; tested on {len(test):,} others."
    )
    drawn = Dataset(images, asked, training.metadata)
    right = evidence.measure(training, drawn, test, params.train_judge, seeds, hardware, progress)
    effects = [evidence.effect(right, test.labels, augmented) for augmented in (True, False)]
    held = torch.bincount(test.labels, minlength=training.classes)
    tables = [_sets(right, test.labels), _classes(right, test, effects[0].base, counts, asked)]
    few = (
        f"Class {test.class_names[int(held.argmin())]} has only {int(held.min())} of the images tested on, "
        "so little can be shown. `--test FILE`, a CSV, folder or .zip, tests on other images."
    )
    report = Report(
        title="Do drawn images help a classifier?",
        verdict=effects[0].verdict,
        summary=evidence.in_words(effects),
        reasons=[few] if int(held.min()) < FEW else [],
        time=now(),
        facts={
            "effects": [{**asdict(each), "verdict": each.verdict} for each in effects],
            "seeds": seeds,
            "generator_digest": inputs.facts["digest"],
            "tested_on": tested_on,
            "images": {"training": len(training), "drawn": len(asked), "tested": len(test)},
        },
        sections={title: table(head, rows, len(head) - 1) for title, head, rows in tables},
    )
    report.write(EVIDENCE, EVIDENCE_TEXT)
    kept = [EVIDENCE, EVIDENCE_TEXT]
    if RUN_PAGE.is_file():
        fold = rendered("evidence.html", report=report, tables=tables)
        page = RUN_PAGE.read_text(encoding="utf-8").replace(MARK, f"{fold}\n{MARK}", 1)
        write_text(EVIDENCE_PAGE, page)
        kept.append(EVIDENCE_PAGE)
    report.say(say, kept[-1])
    with reopen() as tracker:
        for path in kept:
            tracker.log_file(path)


def unseen(path: Path, params: Params, training: Dataset, say: Callable[[str], None]) -> Dataset:
    """The images of a CSV, folder or .zip that are not in the training part. Raises DataError where they are
    no images of the training part's classes and shape."""
    validated = validated_params(read_json(VALIDATION), str(VALIDATION))
    found, _ = read(path, params.data, validated)
    if found.images.shape[1:] != training.images.shape[1:] or found.classes > training.classes:
        raise DataError(
            f"{path}: {found.classes} classes of {found.images.shape[1:]} (channels, height, width); expected"
            f" at most {training.classes} of {tuple(training.images.shape[1:])}, as in the project's data."
        )
    labels, classes = found.labels, training.class_names
    if names := found.class_names:  # of folders, which are in an order of their own
        if unknown := [each for each in names if each not in classes]:
            raise DataError(
                f"{path}: the folder {unknown[0]!r} is none of the project's classes. Rename it; they are "
                f"{', '.join(classes[:LISTED])}."
            )
        labels = np.array([classes.index(each) for each in names])[labels]
    new = ~np.isin(image_digests(found.images), image_digests(training.images.numpy()))
    if not new.all():
        say(f"{path}: {(~new).sum():,} images are in the training part too, and are left out.")
    if not new.any():
        raise DataError(f"{path}: no image that the training part has not. Give other images.")
    images, labels = found.images[new], labels[new]
    return Dataset(torch.from_numpy(images), torch.from_numpy(labels), training.metadata)


def _sets(right: evidence.Right, labels: torch.Tensor) -> Table:
    rows = []
    for (name, augmented), seen in right.items():
        by_class = torch.stack([seen[:, labels == n].double().mean() for n in labels.unique()])
        numbers = [f"{float(each):.2%}" for each in (by_class.mean(), by_class.min())]
        rows.append([SETS[name] + ", augmented" * augmented, *numbers])
    title = "Right on images that nothing was trained on"
    return title, ["trained on", "mean of classes", "worst class"], rows


def _classes(
    right: evidence.Right, test: Dataset, base: str, counts: torch.Tensor, asked: torch.Tensor
) -> Table:
    """Those that got most drawings first. `base`: the set without drawings."""
    added = torch.bincount(asked, minlength=len(counts))
    rows = []
    for n in added.argsort(descending=True, stable=True)[:LISTED].tolist():
        mine = test.labels == n
        shares = [right[name, True][:, mine].double().mean() for name in (base, "drawn")]
        seen = [f"{float(each):.2%}" if mine.any() else "–" for each in shares]
        rows.append([test.class_names[n], int(counts[n]), int(added[n]), int(mine.sum()), *seen])
    head = ["class", "real", "drawn", "tested on", "right without drawings", "with"]
    return "Class by class, augmented", head, rows
