"""`cgan split`: the parts of the data as folders of pictures, for whoever draws with something else."""

from collections.abc import Callable, Iterator
from pathlib import Path

from cgan.downstream.rounds import folds_of
from cgan.drawing.drawings import class_folders, new_folder, numbered, write_folder
from cgan.images import Images, load_images
from cgan.model.sampling import picture_of
from cgan.params.sections import Params
from cgan.pipeline.whole_data import whole_data
from cgan.project import HOLDOUT_DATA, TEST_DATA, TRAIN_DATA


def write_split(params: Params, folds: int | None, out: Path, say: Callable[[str], None]) -> None:
    """`OUT/fold-1/train/<class>/….png` and `…/test/…`; without folds `OUT/train`, `OUT/val` and `OUT/test`.

    Raises CganError where `out` holds something, ModelError where `dvc repro` has not made the data.
    """
    with new_folder(out) as new:
        for name, part in _parts(params, folds):
            pictures, folders = picture_of(part.tensors.pixels), class_folders(part.class_names)
            files = (f"{folders[n]}/{i:06d}.png" for i, n in enumerate(part.labels.tolist(), 1))
            write_folder(new / name, pictures, files)
    ways = f"--folds {folds} --drawn" if folds else "--seeds 5 --drawn"
    train, class_folder = ("each fold's `train`", "FOLD/CLASS/") if folds else ("`train`", "CLASS/")
    say(
        f"{out}: written{numbered(part.class_names)}. Train a generator on {train} and save its drawings in "
        f"FOLDER/{class_folder}; then "
        f"`cgan evidence {ways} FOLDER` says whether they help. Never look at the images for testing."
    )


def _parts(params: Params, folds: int | None) -> Iterator[tuple[str, Images]]:
    if not folds:
        for name, path in (("train", TRAIN_DATA), ("val", HOLDOUT_DATA), ("test", TEST_DATA)):
            if part := load_images(path):  # without images if the data have no test set
                yield name, part
        return
    data = whole_data()
    fold_of = folds_of(data, folds, params)
    for fold in range(folds):
        yield f"fold-{fold + 1}/train", data.at(fold_of != fold)
        yield f"fold-{fold + 1}/test", data.at(fold_of == fold)
