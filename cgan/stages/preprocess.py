"""Stage preprocess: the images → training part, stratified hold-out and test set; a contact sheet."""

from dataclasses import replace

from cgan.base.files import replacing
from cgan.data.contact_sheet import contact_sheet
from cgan.data.images import save_images
from cgan.data.splitting import split_images
from cgan.pipeline import project
from cgan.pipeline.params_file import load_params
from cgan.pipeline.project import REAL_SAMPLES
from cgan.stages.raw import load_raw
from cgan.stages.runner import log, run_stage


def main() -> None:
    params = load_params()
    recipe, data = params.preprocess, load_raw(params.validation)
    data = replace(data, notes=())  # the validation report has them
    parts = split_images(data, recipe.holdout_fraction, recipe.seed, recipe.group)
    train, holdout, test = parts
    del data  # to write a part takes its memory once more
    for line in holdout.notes:
        log.warning(line)
    with replacing(REAL_SAMPLES) as temporary:
        sheet = contact_sheet(train.pixels, train.labels, train.class_names, recipe.seed)
        sheet.save(temporary, format="PNG")
    paths = project.TRAIN_DATA, project.HOLDOUT_DATA, project.TEST_DATA
    for path, part in zip(paths, parts, strict=True):
        save_images(path, part, part=path.stem)
    beside = f", {len(test):,} to test on" if len(test) else ""
    log.info(f"{len(train):,} images for training, {len(holdout):,} held out{beside}")


if __name__ == "__main__":
    run_stage(main)
