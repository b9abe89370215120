"""`cgan balance`: the data, filled up with drawings; `cgan evidence`: does a classifier gain by them?"""

from __future__ import annotations

import contextlib
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cgan.data.csv_report import validated_params
from cgan.data.dataset import Dataset, image_digests, load_dataset
from cgan.data.sources import read
from cgan.errors import CganError, DataError
from cgan.files import read_json, replacing, write_text
from cgan.markdown import table
from cgan.model.hardware import choose_hardware, compute_deterministically
from cgan.model.sampling import picture_of
from cgan.page.assemble import rendered
from cgan.page.data_facts import Rows
from cgan.params.sections import Params
from cgan.project import (
    EVIDENCE,
    EVIDENCE_PAGE,
    EVIDENCE_TEXT,
    GATE_REPORT,
    GATE_TEXT,
    JUDGE,
    RUN_PAGE,
    TEST_DATA,
    VALIDATION,
)
from cgan.quality import evidence
from cgan.quality.evaluation import Inputs
from cgan.quality.judge import Progress, load_judge
from cgan.registry.client import now
from cgan.serving.drawings import write_csv, write_folder
from cgan.serving.generator import Generator
from cgan.tracking.runs import reopen
from cgan.verdict import Report

Table = tuple[str, list[str], list[list[Any]]]  # title, header, rows
Say = Callable[[str], None]
MARK = '<details class="part" id="metrics">'  # on the run's page
FEW = 20  # images of a class to be tested on
LISTED = 60  # classes


def balance(
    source: str,
    per_class: int | None,
    believed: float,
    seed: int,
    out: str,
    say: Say,
    *,
    anyway: bool = False,
) -> None:
    """Write the data and the drawings that fill up its classes: a CSV, or a folder of pictures by class; and
    beside it which rows are drawn. `anyway`: also with drawings that were found to be harmful or blocked."""
    path = Path(out)
    if path.suffix not in ("", ".csv"):
        raise CganError(f"--out {out}: expected a name that ends in .csv, or a folder's name.")
    rows, generator = Rows.read(), Generator.load(source)
    classes = int(rows.metadata["classes"])
    found = (generator.classes, *generator.shape)
    shape = rows.images.shape
    expected = (classes, *shape[2:], *([3] if shape[1] == 3 else []))
    if found != expected:
        raise CganError(
            f"--model {source}: draws {found[0]} classes, images of {found[1:]}; the project's data has "
            f"{classes} of {expected[1:]}. Train a generator on it: `dvc repro`."
        )
    if (found_bad := spoken_against(str(generator.facts["digest"]))) and not anyway:
        raise CganError(f"{found_bad} To write the data nevertheless: --anyway.")
    counts = torch.from_numpy(np.bincount(rows.labels, minlength=classes))
    asked = evidence.missing(counts, per_class or evidence.default_per_class(counts))
    judge, facts = load_judge(JUDGE)
    if facts.get("data_digest") != rows.metadata["digest"]:
        raise CganError(f"{JUDGE}: learnt from other data than the project's. Run `dvc repro`.")
    drawn, sure = evidence.fill(generator.network, judge, asked, seed, believed)
    images = np.concatenate([rows.images, drawn.numpy()])
    labels = np.concatenate([rows.labels, asked.numpy()])
    part = np.full(len(labels), "drawn", dtype=object)
    part[rows.training], part[rows.heldout] = "train", "holdout"
    pictures = picture_of(torch.from_numpy(images).permute(0, 2, 3, 1).contiguous())
    listed = pd.DataFrame({"row": np.arange(1, len(labels) + 1), "label": labels, "part": part})
    listed.insert(2, "class", np.array(generator.class_names, object)[labels])
    if rows.files:
        listed["original"] = [*rows.files, *[None] * len(asked)]
    listed["judge"] = np.concatenate([np.full(len(rows.labels), np.nan), sure.numpy()])
    if path.suffix == ".csv":
        column = validated_params(read_json(VALIDATION), str(VALIDATION)).label_column
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            write_csv(file, pictures, labels.tolist(), column)
    else:
        folders = _folders(generator.class_names)
        numbered = [f"{kind}_{row:06d}" for row, kind in zip(listed["row"], part, strict=True)]
        own = [Path(file).stem for file in rows.files]
        twice = {
            name
            for name, count in Counter(zip(rows.labels, own, strict=bool(own))).items()
            if count > 1
        }
        for row, name in enumerate(own):
            numbered[row] = f"{name}_{row + 1:06d}" if (rows.labels[row], name) in twice else name
        listed["file"] = [
            f"{folders[n]}/{name}.png" for n, name in zip(labels, numbered, strict=True)
        ]
        write_folder(path, pictures, listed["file"])
    beside = path.with_name(f"{path.stem}.rows.csv")
    write_text(beside, listed.to_csv(index=False, float_format="%.4f"))
    say(
        f"{out}: {len(rows.labels):,} real images and {len(asked):,} drawn ones; {beside} says which is "
        "which. Train with the drawn ones, never test on them. `cgan evidence` says whether they help."
    )


def spoken_against(digest: str) -> str:
    """What `cgan evidence` or the gate found against this generator's drawings; empty where nothing is."""
    with contextlib.suppress(CganError):
        found = read_json(EVIDENCE)
        if found.get("generator_digest") == digest and found.get("verdict") == "harm":
            return f"{EVIDENCE_TEXT}: these drawings harm a classifier. {found.get('summary')}"
    with contextlib.suppress(CganError):
        found = read_json(GATE_REPORT)
        judged = (found.get("challenger") or {}).get("digest")
        if judged == digest and found.get("verdict") == "blocked":
            return f"{GATE_TEXT}: the gate blocked this generator. {found.get('summary')}"
    return ""


def _folders(names: list[str]) -> list[str]:
    """The classes' names, where all can be names of folders of pictures, else their numbers."""
    plain = all(Path(name).name == name and not name.startswith(".") for name in names)
    return names if plain else [str(label) for label in range(len(names))]


def find_evidence(
    params: Params,
    per_class: int | None,
    believed: float,
    seeds: int,
    more: Path | None,
    say: Say,
    progress: Progress,
) -> None:
    """Report, page and a copy on the run's page in MLflow: does a classifier gain by the drawings?

    It is tested on the hold-out, or on the images of the CSV `more` that are not in the training part.
    """
    inputs = Inputs.load()
    compute_deterministically()
    hardware = choose_hardware("auto", "auto")
    training = inputs.training
    counts = torch.bincount(training.labels, minlength=training.classes)
    asked = evidence.missing(counts, per_class or evidence.default_per_class(counts))
    images, _ = evidence.fill(inputs.network, inputs.judge, asked, params.evaluate.seed, believed)
    drawn = Dataset(images, asked, training.metadata)
    own = (
        load_dataset(TEST_DATA) if TEST_DATA.is_file() else None
    )  # empty where the source names none
    test = _unseen(more, params, inputs, say) if more else own or inputs.heldout
    say(
        f"Training {6 * seeds} classifiers: {len(training):,} real images, without and with {len(asked):,} "
        f"more; tested on {len(test):,} others."
    )
    right = evidence.measure(training, drawn, test, params.train_judge, seeds, hardware, progress)
    effects = [evidence.effect(right, test.labels, augmented) for augmented in (True, False)]
    held = torch.bincount(test.labels, minlength=training.classes)
    added = torch.bincount(asked, minlength=training.classes)
    tables = [_sets(right, test.labels), _classes(right, test, effects[0], counts, added)]
    reasons = []
    if int(held.min()) < FEW:
        reasons.append(
            f"Class {test.class_names[int(held.argmin())]} has only {int(held.min())} of the images tested "
            "on, so little can be shown. `--test FILE`, a CSV, folder or .zip, tests on other images."
        )
    report = Report(
        title="Do drawn images help a classifier?",
        verdict=effects[0].verdict,
        summary=evidence.in_words(effects),
        reasons=reasons,
        time=now(),
        facts={
            "effects": [{**asdict(each), "verdict": each.verdict} for each in effects],
            "seeds": seeds,
            "generator_digest": inputs.facts["digest"],
            "tested_on": str(more or ("test set" if own else "hold-out")),
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


def _unseen(path: Path, params: Params, inputs: Inputs, say: Say) -> Dataset:
    """The images of a CSV that are not in the training part."""
    training = inputs.training
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
    known = image_digests(training.images.numpy())
    new = ~np.isin(image_digests(found.images), known)
    if not new.all():
        say(f"{path}: {(~new).sum():,} images are in the training part too, and are left out.")
    if not new.any():
        raise DataError(f"{path}: no image that the training part has not. Give other images.")
    images, numbers = (torch.from_numpy(each[new]) for each in (found.images, labels))
    return Dataset(images, numbers, training.metadata)


def _sets(right: evidence.Right, labels: torch.Tensor) -> Table:
    rows = []
    for (name, augmented), seen in right.items():
        by_class = [float(seen[:, labels == n].double().mean()) for n in labels.unique()]
        numbers = statistics.fmean(by_class), min(by_class)
        what = {"real": "real images", "repeated": "real ones, repeated", "drawn": "real and drawn"}
        rows.append([what[name] + ", augmented" * augmented, *(f"{each:.2%}" for each in numbers)])
    return (
        "Right on images that nothing was trained on",
        ["trained on", "mean of classes", "worst class"],
        rows,
    )


def _classes(
    right: evidence.Right,
    test: Dataset,
    effect: evidence.Effect,
    counts: torch.Tensor,
    added: torch.Tensor,
) -> Table:
    """Those that got most drawings first."""
    rows = []
    for n in added.argsort(descending=True, stable=True)[:LISTED].tolist():
        mine = test.labels == n
        shares = [
            float(right[name, True][:, mine].double().mean()) for name in (effect.base, "drawn")
        ]
        seen = [f"{each:.2%}" if mine.any() else "–" for each in shares]
        rows.append([test.class_names[n], int(counts[n]), int(added[n]), int(mine.sum()), *seen])
    head = ["class", "real", "drawn", "tested on", "right without drawings", "with"]
    return "Class by class, augmented", head, rows
