"""`cgan validate` before an hour is spent: what is held out, what is chosen, and how long it will take."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from cgan.contact_sheet import COLUMNS
from cgan.images import Images
from cgan.model.hardware import Hardware, choose_hardware
from cgan.page.drawn_facts import drawings_shown
from cgan.params.sections import DataParams, JudgeParams, Params
from cgan.pipeline.progress import seconds_a_step, seconds_of_training
from cgan.project import RUN_PAGE
from cgan.quality.conditions import labels_to_draw
from cgan.quality.judge import train_judge
from cgan.readers.csv_report import of_each
from cgan.readers.sources import read_by
from cgan.splitting import split_images
from cgan.text import duration, listed
from cgan.training.auto import Choice, build_sampler, choose, choose_gan

TOO_FEW_HELD_OUT = 3  # held-out images: they say nothing of a class
ENOUGH_HELD_OUT = 10
TIMED_DRAWINGS = 8  # drawings
REST_S = (
    25.0  # ten starts of Python with torch, comparisons and pictures: 19 s on digits, 37 s at 96 px
)

Counts = dict[str, int]  # by the class's name


def foresee(data: Images, params: Params) -> Iterator[str]:
    """Four lines: classes, the hold-out, `auto` and the time; before them what `preprocess` will say. Takes
    some seconds, for it trains a few steps."""
    recipe = params.preprocess
    fraction = recipe.holdout_fraction
    parts = split_images(replace(data, notes=()), fraction, recipe.seed, recipe.group)
    training, heldout, _ = parts
    trained, held, tested = (
        dict(zip(part.class_names, part.counts.tolist(), strict=True)) for part in parts
    )
    yield from heldout.notes
    yield f"To train on: {of_each(trained)}."
    own_split = data.splits is not None and bool((data.splits == 1).any())
    yield _held_out(held, tested, fraction, own_split)
    choice = choose(params.train, training)
    yield f"Chosen for these images: {choice.explanation or 'nothing, as `train` has no `auto`'}."
    if choice.advice:
        yield choice.advice
    yield _how_long(training, params, choice)


def next_step(file: Path, params: DataParams) -> str:
    """What makes the run's page of this file, in words."""
    here, target = Path(params.path).resolve(), file.resolve()
    settings = [] if params.source == "file" else ["`data.source: file`"]
    if here not in (target, *target.parents):
        settings.append(f"`data.path: {file}`")
    before = f"set {' and '.join(settings)} in params.yaml, then " if settings else ""
    return f"Next: {before}`dvc repro`; it makes {RUN_PAGE}, the page with drawings and numbers."


def _held_out(held: Counts, tested: Counts, fraction: float, own_split: bool) -> str:
    text = f"Held out: {of_each(held)}."
    if any(tested.values()):
        text += f" For `cgan evidence` to test on: {of_each(tested)}."
    if few := [name for name, count in held.items() if count <= TOO_FEW_HELD_OUT]:
        enough = min(0.5, fraction * ENOUGH_HELD_OUT / max(1, min(held.values())))
        advice = f"set `preprocess.holdout_fraction: {enough:.1g}`"
        if own_split:
            advice = "add some to val"
        elif not any(tested.values()):
            advice += ", or bring images to test on (`cgan evidence --test`)"
        text += f" {TOO_FEW_HELD_OUT} or fewer say nothing about a class ({listed(few)}): {advice}."
    return text


def run_times(file: Path, params: Params, sizes: list[tuple[int, int]]) -> str:
    """How long a run takes with pictures of these widths and heights, in words. Takes some seconds."""
    predictions = []
    for width, height in sizes:
        sized = params.data.model_copy(update={"height": height, "width": width})
        data, _ = read_by(file, sized, params.validation)
        recipe = params.preprocess
        training, *_ = split_images(data, recipe.holdout_fraction, recipe.seed, recipe.group)
        seconds = sum(_seconds(training, params, choose(params.train, training)))
        predictions.append(f"about {duration(seconds)} with {width} × {height}")
    return f"A run takes, on this machine, {' and '.join(predictions)}."


def _how_long(training: Images, params: Params, choice: Choice) -> str:
    hardware = choose_hardware(choice.params.device, choice.params.precision)
    taken, judging, rest = _seconds(training, params, choice)
    of_what, instead = (
        f"{choice.params.total_kimg:g} kimg of the generator's training (`train.total_kimg`)",
        "",
    )
    if choice.sampler:
        of_what = f"some {drawings_of_a_run(training, params, choice):,} drawings"
        gan = choose_gan(params.train.model_copy(update={"generator": "auto"}), training).params
        instead = (
            f" A GAN (`train.generator: {gan.generator}`) would train for "
            f"{duration(seconds_of_training(training, gan))}, and draw at once."
        )
    return (
        f"Time on this machine ({hardware.device}, {os.cpu_count()} cores): about "
        f"{duration(taken + judging + rest)}: {duration(taken)} for {of_what}, {duration(judging)} for "
        f"judges, {duration(rest)} for the rest.{instead}"
    )


def _seconds(training: Images, params: Params, choice: Choice) -> tuple[float, float, float]:
    """The seconds of the generator's training, or of a sampler's drawings; of judges', and of the rest."""
    hardware = choose_hardware(choice.params.device, choice.params.precision)
    kimg, gan_train = params.train_judge.total_kimg, params.evaluate.gan_train_kimg
    times = 1 + (1 if gan_train is None else gan_train / kimg)
    judging = times * seconds_of_judge(training, params.train_judge, hardware)
    if choice.sampler:
        sampler = build_sampler(training, choice)
        labels = torch.arange(TIMED_DRAWINGS) % training.classes
        began = time.perf_counter()
        sampler.draw(labels, params.render.seed)
        each = (time.perf_counter() - began) / len(labels)
        return each * drawings_of_a_run(training, params, choice), judging, REST_S
    return seconds_of_training(training, choice.params), judging, REST_S


def drawings_of_a_run(training: Images, params: Params, choice: Choice) -> int:
    """How many drawings evaluation, page and pictures take."""
    sampler = build_sampler(training, choice)
    judged = labels_to_draw(training.classes, params.evaluate, sampler.seconds_per_drawing)
    sheets = training.classes * (params.render.columns + COLUMNS)
    return params.evaluate.draws * len(judged) + drawings_shown(sampler) + sheets


def seconds_of_judge(data: Images, recipe: JudgeParams, hardware: Hardware) -> float:
    where = hardware.device, hardware.precision
    a_step = seconds_a_step(lambda steps: train_judge(data, recipe, *where, steps))
    return a_step * recipe.total_kimg * 1000 / min(recipe.batch_size, len(data))
