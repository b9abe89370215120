"""What the stage download left in data/raw: the CSV, or pictures as arrays."""

from __future__ import annotations

import numpy as np

from cgan.data.csv_reader import read_csv
from cgan.data.dataset import LabelledImages, digest_of
from cgan.data.pictures import TENSORS
from cgan.errors import DataError
from cgan.files import read_json
from cgan.model import file_facts
from cgan.params.sections import ValidateParams
from cgan.project import CSV, CSV_SOURCE, PICTURES


def load_raw(params: ValidateParams) -> LabelledImages:
    """The images of the CSV, checked as `read_csv` does, or the pictures.

    Raises DataError for a CSV that is none, ModelError for a damaged file of pictures.
    """
    if not PICTURES.is_file():
        if not CSV.is_file():
            raise DataError(f"{CSV}: not found. Fetch the data first: `dvc repro validate`.")
        return read_csv(CSV, params)
    with file_facts.opened(PICTURES, "pictures", "np") as (file, facts):
        names = [name for name in TENSORS if name in file.keys()]  # noqa: SIM118
        arrays = {name: file.get_tensor(name) for name in names}
    images, labels = arrays["images"], arrays["labels"]
    if digest_of(*arrays.values()) != facts["digest"]:
        raise file_facts.damaged(PICTURES)
    return LabelledImages(
        images,
        labels,
        np.arange(1, len(labels) + 1),
        facts["classes"],
        facts["digest"],
        images.nbytes,
        tuple(facts["warnings"]),
        read_json(CSV_SOURCE)["files"],
        facts["class_names"],
        arrays.get("splits"),
        arrays.get("groups"),
    )


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
    shape = dict(zip(("channels", "height", "width"), found.images.shape[1:], strict=True))
    return params.model_copy(update={"class_names": names, **shape})
