"""The images that the stage download left, for the stages that read them."""

from dataclasses import replace

from cgan.base.files import read_json
from cgan.data.csv_reader import read_csv
from cgan.data.images import Images, load_images
from cgan.data.read import with_class_names
from cgan.params.sections import ValidateParams
from cgan.pipeline.project import CSV, DATA_SOURCE, PICTURES


def load_raw(params: ValidateParams) -> Images:
    """The images of the CSV, checked as `read_csv` does, or the pictures.

    Raises DataError for a file that is not a valid CSV, ModelError for a damaged file of pictures.
    """
    if not PICTURES.is_file():
        with CSV.open("rb") as file:
            return read_csv(file, params, str(CSV))
    pictures = replace(load_images(PICTURES), files=read_json(DATA_SOURCE)["files"])
    return with_class_names(pictures, params, str(PICTURES))
