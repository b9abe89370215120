"""The forecast of `cgan validate`: what a run will hold out and choose, and how much that can tell."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cgan.data.images import Images
from cgan.data.splitting import split_images
from cgan.data.validation import describe_counts
from cgan.page.classes import too_few_held_out
from cgan.params.sections import DataParams, Params
from cgan.pipeline.project import RUN_PAGE
from cgan.training.auto import choose


def forecast(data: Images, params: Params) -> Iterator[str]:
    """What `preprocess` will say, how the images will be divided, and what `auto` will choose."""
    recipe = params.preprocess
    training, held_out, test = split_images(
        replace(data, notes=()), recipe.holdout_fraction, recipe.seed, recipe.group
    )
    yield from held_out.notes
    for title, part in (("To train on", training), ("Held out", held_out), ("To test on", test)):
        if len(part):
            counts = dict(zip(part.class_names, part.counts.tolist(), strict=True))
            yield f"{title}: {describe_counts(counts)}."
    yield from too_few_held_out(held_out)
    choice = choose(params.train, training)
    yield f"Chosen for these images: {choice.explanation or 'nothing, as `train` has no `auto`'}."
    if choice.advice:
        yield choice.advice


def next_step(file: Path, params: DataParams) -> str:
    """What to do so that a run with this file makes its page."""
    configured, target = Path(params.path).resolve(), file.resolve()
    settings = [] if params.source == "file" else ["`data.source: file`"]
    if configured not in (target, *target.parents):
        settings.append(f"`data.path: {file}`")
    first = f"set {' and '.join(settings)} in params.yaml, then " if settings else ""
    return f"Next: {first}`dvc repro`; it makes {RUN_PAGE}, the page with drawings and numbers."
