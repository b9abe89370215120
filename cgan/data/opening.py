"""Whatever is named → its images: a CSV, an archive, a folder; what the stage download left in data/raw."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from cgan.data.album import find
from cgan.data.csv_reader import read_csv
from cgan.data.dataset import LabelledImages, load_pictures
from cgan.data.pictures import read_album
from cgan.data.sources import is_plain, unpack
from cgan.errors import DataError
from cgan.files import read_json
from cgan.params.sections import DataParams, ValidateParams
from cgan.project import CSV, CSV_SOURCE, PICTURES


def read(path: Path, params: DataParams, expected: ValidateParams) -> tuple[LabelledImages, str]:
    """The images that a file, archive or folder holds, and its name for messages. Raises SourceError for
    what cannot be had, DataError for a CSV that is none of images."""
    with find(path) as (found, album):
        if album:
            return read_album(album, params), str(found)
    limit = params.max_megabytes * 1_000_000
    if is_plain(found):
        return read_csv(found, expected, max_bytes=limit), str(found)
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        csv, name = Path(folder) / "unpacked.csv", f"{found} (unpacked)"
        unpack(found, csv, params, str(found))
        return read_csv(csv, expected, name=name), name


def load_raw(params: ValidateParams) -> LabelledImages:
    """The images of the CSV, checked as `read_csv` does, or the pictures.

    Raises DataError for a CSV that is none, ModelError for a damaged file of pictures.
    """
    if PICTURES.is_file():
        return replace(load_pictures(PICTURES), files=read_json(CSV_SOURCE)["files"])
    if not CSV.is_file():
        raise DataError(f"{CSV}: not found. Fetch the data first: `dvc repro validate`.")
    return read_csv(CSV, params)


def as_found(params: ValidateParams, found: LabelledImages) -> ValidateParams:
    """`params` with the names and the shape that pictures have of themselves.

    Raises DataError where `validate.classes` contradicts them.
    """
    if not found.files:
        return params
    own, names = found.class_names, params.class_names
    if params.classes not in (None, found.classes):
        raise DataError(
            f"`validate.classes` is {params.classes}, the pictures have {found.classes} classes. Set it to "
            "null."
        )
    if not names or set(names) == set(own or ()):  # in another order they would be the wrong ones
        names = own
    channels, height, width = found.images.shape[1:]
    shape = {"channels": channels, "height": height, "width": width}
    return params.model_copy(update={"class_names": names, **shape})
