"""`cgan balance`: the data, filled up with drawings."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cgan.data.csv_report import validated_params
from cgan.errors import CganError
from cgan.evidence.sets import default_per_class, fill, missing
from cgan.files import read_json, replacing, write_text
from cgan.model.sampling import picture_of
from cgan.page.data_facts import Rows
from cgan.project import (
    EVIDENCE,
    EVIDENCE_TEXT,
    GATE_REPORT,
    GATE_TEXT,
    JUDGE,
    VALIDATION,
)
from cgan.quality.judge import load_judge
from cgan.serving.drawings import class_folders, write_csv, write_folder
from cgan.serving.generator import Generator

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
    asked = missing(counts, per_class or default_per_class(counts))
    judge, facts = load_judge(JUDGE)
    if facts.get("data_digest") != rows.metadata["digest"]:
        raise CganError(f"{JUDGE}: learnt from other data than the project's. Run `dvc repro`.")
    drawn, sure = fill(generator.network, judge, asked, seed, believed)
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
        folders = class_folders(generator.class_names)
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
