"""Stage page: the run as one HTML file, with the generator in it."""

from dataclasses import replace

from cgan.base.errors import ModelError
from cgan.base.files import read_json, sha256_of, write_text
from cgan.data.images import Images, load_images
from cgan.drawing.generator import Generator
from cgan.models.hardware import deterministic
from cgan.page.image_facts import both_parts
from cgan.page.run_page import Contents, render_page
from cgan.params.sections import Params
from cgan.pipeline import project
from cgan.pipeline.params_file import load_params
from cgan.pipeline.tracking.run import read_training
from cgan.pipeline.tracking.store import COMMIT_TAG, DATA_TAG, DIRTY_TAG
from cgan.quality.evaluation import Evaluation
from cgan.quality.judge import load_judge
from cgan.stages.runner import log, run_stage
from cgan.training.records import preview_paths


@deterministic()
def main() -> None:
    contents = contents_of(load_params())
    log.info("Looking at the images, for the page …")
    page = render_page(contents)
    write_text(project.RUN_PAGE, page)
    log.info(
        "%s: %.1f MB; any browser opens it, offline.", project.RUN_PAGE, len(page.encode()) / 1e6
    )


def contents_of(params: Params) -> Contents:
    """The page's contents, from what the stages left. Raises CganError for what doesn't belong together."""
    generator = Generator.load(project.GENERATOR)
    evaluation = Evaluation.read(project.EVALUATION)
    judge, _ = load_judge(project.JUDGE)
    data, training = all_images(), read_training(project.TRAINING)
    validation = read_json(project.VALIDATION)
    is_its_data = generator.facts.get("data_sha256") == data.source_sha256
    if not (is_its_data and evaluation.is_about(generator.facts)):
        raise ModelError(
            f"{project.GENERATOR}, {project.EVALUATION} and {project.TRAIN_DATA} differ. Run `dvc repro`."
        )
    tags = training["tags"]
    return Contents(
        generator=generator,
        evaluation=evaluation,
        title=" · ".join(filter(None, (training["experiment"], tags.get(DATA_TAG)))),
        curves=project.CURVES_HTML.read_text(encoding="utf-8"),
        previews={
            step: path.read_bytes() for step, path in preview_paths(project.PREVIEWS).items()
        },
        seconds=training.get("training_s"),
        limits=params.gate,
        data=data,
        judge=judge,
        remarks=[*validation["reasons"], *data.notes],
        tested=validation.get("splits", {}).get("test", 0),
        origin={
            "run_name": training.get("run_name"),
            "commit": tags.get(COMMIT_TAG),
            "dirty": tags.get(DIRTY_TAG) == "true",
            "sha256": sha256_of(project.GENERATOR),
        },
    )


def all_images() -> Images:
    """The images of both parts, in the order of the CSV or of the files."""
    data = both_parts(load_images(project.TRAIN_DATA), load_images(project.HOLDOUT_DATA))
    data = data.at(data.lines.argsort())
    names = read_json(project.DATA_SOURCE).get("files")  # those of a test set, too
    return replace(data, files=[names[line - 1] for line in data.lines] if names else [])


if __name__ == "__main__":
    run_stage(main)
