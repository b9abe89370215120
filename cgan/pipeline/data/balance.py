"""`cgan balance`: the data, filled up with drawings until every class has as many images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cgan.downstream.sets import fill_classes, missing_labels
from cgan.drawing.drawings import class_folders, write_csv, write_folder
from cgan.drawing.generator import Generator
from cgan.errors import CganError
from cgan.files import write_text
from cgan.images import Images, IntArray
from cgan.markdown import in_spreadsheet
from cgan.model.sampling import picture_of
from cgan.page.data_facts import rows_of
from cgan.pipeline.params_file import load_params
from cgan.pipeline.whole_data import whole_data
from cgan.project import GENERATOR, JUDGE, RUN_PAGE
from cgan.quality.judge import load_judge


def balance(
    source: str,
    per_class: int | None,
    believed: float,
    seed: int,
    out: str,
    say: Callable[[str], None],
) -> None:
    """Write the data and then the drawings: a CSV, or a folder of pictures by class; and beside it which rows
    are drawn. `believed`: how sure the judge must be of a drawing's class."""
    path = Path(out)
    if path.suffix not in ("", ".csv"):
        raise CganError(f"--out {out}: expected a file name that ends in .csv, or a folder name.")
    data, generator = whole_data(), Generator.load(source)
    _require_same_kind(source, generator, data)
    judge, facts = load_judge(JUDGE)
    if facts.get("data_digest") != data.at(rows_of(data, "train")).digest:
        raise CganError(f"{JUDGE} was not trained on the project's present data. Run `dvc repro`.")
    lacking = missing_labels(data.tensors.counts, per_class)
    drawn, confidence = fill_classes(
        generator.model, judge, lacking, seed, believed, generator.class_names
    )
    pictures = picture_of(torch.cat([data.tensors.pixels, drawn]))
    labels = torch.cat([data.tensors.labels, lacking]).numpy()
    rows = _rows_table(data, labels, generator.class_names, confidence.numpy())
    if path.suffix == ".csv":
        write_csv(path, pictures, labels.tolist(), load_params().validation.label_column)
    else:
        folders = np.array(class_folders(generator.class_names), object)
        rows["file"] = _picture_names(folders[labels], data.files, rows)
        write_folder(path, pictures, rows["file"])
    rows_path = path.with_name(f"{path.stem}.rows.csv")
    write_text(rows_path, _for_spreadsheets(rows).to_csv(index=False, float_format="%.4f"))
    is_own = Path(source).resolve() == GENERATOR.resolve()  # the page is about that
    poorly = f", and {RUN_PAGE} which classes are drawn poorly" if is_own else ""
    say(
        f"{out}: {len(data):,} real images and {len(lacking):,} drawn ones; {rows_path} says which is "
        f"which. Train on the drawn ones, but never test on them. `cgan evidence` says whether they "
        f"help{poorly}."
    )


def _require_same_kind(source: str, generator: Generator, data: Images) -> None:
    channels, height, width = data.shape
    shape = (height, width, 3) if channels == 3 else (height, width)
    if (generator.classes, generator.shape) != (data.classes, shape):
        raise CganError(
            f"--model {source} draws {generator.classes} classes of shape {generator.shape}, but the "
            f"project's data has {data.classes} of shape {shape}. Train another generator: `dvc repro`."
        )


def _rows_table(
    data: Images, labels: IntArray, class_names: Sequence[str], confidence: NDArray[np.float32]
) -> pd.DataFrame:
    """A row for each image of the data and then for each drawing, which part it is of, and how sure the judge
    is of a drawing."""
    part = np.full(len(labels), "drawn", dtype=object)
    part[rows_of(data, "train")], part[rows_of(data, "val")] = "train", "holdout"
    names = np.array(class_names, object)[labels]
    numbers = np.arange(len(labels)) + 1
    rows = pd.DataFrame({"row": numbers, "label": labels, "class": names, "part": part})
    if data.files:
        rows["original"] = [*data.files, *[None] * (len(labels) - len(data))]
    rows["judge"] = np.concatenate([np.full(len(data), np.nan), confidence])
    return rows


def _for_spreadsheets(rows: pd.DataFrame) -> pd.DataFrame:
    """The same without texts that a spreadsheet takes for formulas."""
    for column, before in (("class", "'"), ("original", "./"), ("file", "./")):
        if column in rows:
            plain = partial(in_spreadsheet, before=before)
            rows[column] = rows[column].map(plain, na_action="ignore")
    return rows


def _picture_names(
    folders: NDArray[np.object_], files: Sequence[str], rows: pd.DataFrame
) -> pd.Series[str]:
    """`<class>/<name>.png` of each row: an original keeps its name; the row's number tells equal ones apart,
    and is all that rows of a CSV and drawings have."""
    suffix = rows["row"].map("_{:06d}".format)
    names = rows["part"] + suffix
    names[: len(files)] = [Path(file).stem for file in files]
    path: pd.Series[str] = folders + "/" + names
    return path.where(~path.duplicated(keep=False), path + suffix) + ".png"
