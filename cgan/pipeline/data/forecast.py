"""The forecast of `cgan validate`: what a run will hold out and choose, and how long it will take."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cgan.contact_sheet import COLUMNS
from cgan.images import Images
from cgan.model.hardware import choose_hardware
from cgan.model.local_score import LocalScoreSampler
from cgan.page.drawn_facts import drawings_shown
from cgan.params.sections import DataParams, Params
from cgan.pipeline.progress import seconds_of_judge, seconds_of_training
from cgan.project import RUN_PAGE
from cgan.quality.conditions import labels_to_draw
from cgan.readers.csv_report import describe_counts
from cgan.splitting import split_images
from cgan.text import duration, listed
from cgan.training.auto import Choice, choose

TOO_FEW_HELD_OUT = 3  # held-out images: they say nothing of a class
ENOUGH_HELD_OUT = 10
TIMED_DRAWINGS = 8
# Ten starts of Python with torch, comparisons and pictures: 19 s on digits, 37 s at 96 px.
OTHER_STAGES_S = 25.0

Counts = dict[str, int]  # images by the class's name


@dataclass(frozen=True)
class RunTime:
    """Seconds: of the generator's training, or of a sampler's drawings; and of the judges."""

    generator: float
    judges: float

    @property
    def total(self) -> float:
        return self.generator + self.judges + OTHER_STAGES_S


def forecast(data: Images, params: Params) -> Iterator[str]:
    """Four lines: classes, the hold-out, `auto` and the time; before them what `preprocess` will say. Takes
    some seconds, for it trains a few steps."""
    recipe = params.preprocess
    fraction = recipe.holdout_fraction
    parts = split_images(replace(data, notes=()), fraction, recipe.seed, recipe.group)
    training, held_out, _ = parts
    to_train, to_hold_out, to_test = (
        dict(zip(part.class_names, part.counts.tolist(), strict=True)) for part in parts
    )
    yield from held_out.notes
    yield f"To train on: {describe_counts(to_train)}."
    source_has_val = data.splits is not None and bool((data.splits == 1).any())
    yield _held_out_line(to_hold_out, to_test, fraction, source_has_val)
    choice = choose(params.train, training)
    yield f"Chosen for these images: {choice.explanation or 'nothing, as `train` has no `auto`'}."
    if choice.advice:
        yield choice.advice
    yield _time_line(training, params, choice)


def next_step(file: Path, params: DataParams) -> str:
    """What to do so that a run with this file makes its page."""
    configured, target = Path(params.path).resolve(), file.resolve()
    settings = [] if params.source == "file" else ["`data.source: file`"]
    if configured not in (target, *target.parents):
        settings.append(f"`data.path: {file}`")
    first = f"set {' and '.join(settings)} in params.yaml, then " if settings else ""
    return f"Next: {first}`dvc repro`; it makes {RUN_PAGE}, the page with drawings and numbers."


def _held_out_line(held_out: Counts, test: Counts, fraction: float, source_has_val: bool) -> str:
    has_test, text = any(test.values()), f"Held out: {describe_counts(held_out)}."
    if has_test:
        text += f" For `cgan evidence` to test on: {describe_counts(test)}."
    few = [name for name, count in held_out.items() if count <= TOO_FEW_HELD_OUT]
    if not few:
        return text
    if source_has_val:
        advice = "add some to val"
    else:
        enough = min(0.5, fraction * ENOUGH_HELD_OUT / max(1, min(held_out.values())))
        advice = f"set `preprocess.holdout_fraction: {enough:.1g}`"
        if not has_test:
            advice += ", or bring images to test on (`cgan evidence --test`)"
    return (
        f"{text} {TOO_FEW_HELD_OUT} or fewer say nothing about a class ({listed(few)}): {advice}."
    )


def _time_line(training: Images, params: Params, choice: Choice) -> str:
    hardware = choose_hardware(choice.params.device, choice.params.precision)
    expected = run_time(training, params, choice)
    what = f"{choice.params.total_kimg:g} kimg of the generator's training (`train.total_kimg`)"
    if choice.sampler:
        what = f"some {drawings_of_a_run(training, params, choice.sampler):,} drawings"
    return (
        f"Time on this machine ({hardware.device}, {os.cpu_count()} cores): about "
        f"{duration(expected.total)}: {duration(expected.generator)} for {what}, "
        f"{duration(expected.judges)} for judges, {duration(OTHER_STAGES_S)} for the rest."
    )


def run_time(training: Images, params: Params, choice: Choice) -> RunTime:
    """How long a run takes on this machine, by a few steps or drawings."""
    hardware = choose_hardware(choice.params.device, choice.params.precision)
    judge_kimg, gan_train_kimg = params.train_judge.total_kimg, params.evaluate.gan_train_kimg
    # GAN-train's classifier: as long as a judge, if not said otherwise.
    judges = 2.0 if gan_train_kimg is None else 1 + gan_train_kimg / judge_kimg
    judging = judges * seconds_of_judge(training, params.train_judge, hardware)
    if not (sampler := choice.sampler):
        return RunTime(seconds_of_training(training, choice.params), judging)
    labels = torch.arange(TIMED_DRAWINGS) % training.classes
    began = time.perf_counter()
    sampler.draw(labels, 0)
    seconds_a_drawing = (time.perf_counter() - began) / len(labels)
    return RunTime(seconds_a_drawing * drawings_of_a_run(training, params, sampler), judging)


def drawings_of_a_run(training: Images, params: Params, sampler: LocalScoreSampler) -> int:
    """How many drawings evaluation, page and pictures take."""
    judged = labels_to_draw(training.classes, params.evaluate, sampler.seconds_per_drawing)
    sheets = training.classes * 2 * COLUMNS
    return params.evaluate.draws * len(judged) + drawings_shown(sampler) + sheets
