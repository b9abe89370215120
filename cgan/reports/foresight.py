"""`cgan validate` before an hour is spent: what is held out, what is chosen, and how long it will take."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from cgan.data.csv_report import of_each
from cgan.data.dataset import Dataset, LabelledImages, Rows
from cgan.data.parts import divide
from cgan.data.sources import read
from cgan.errors import listed
from cgan.model.hardware import Hardware, choose_hardware
from cgan.params.sections import DataParams, JudgeParams, Params, TrainParams
from cgan.project import RUN_PAGE
from cgan.quality.judge import train_judge
from cgan.stages.forecast import seconds_a_step, seconds_of_training
from cgan.stages.runner import duration
from cgan.training.fitting import fit

TOO_FEW = 3  # held-out images: they say nothing of a class
WANTED = 10
REST_S = (
    25.0  # ten starts of Python with torch, comparisons and pictures: 19 s on digits, 37 s at 96 px
)

Counts = dict[str, int]  # by the class's name


def foresee(data: LabelledImages, names: list[str], params: Params) -> Iterator[str]:
    """Four lines: classes, the hold-out, `auto` and the time; before them what `preprocess` will say. Takes
    some seconds, for it trains a few steps."""
    parts, _, notes = divide(data, names, params.preprocess)
    trained, held, tested = (
        dict(zip(names, np.bincount(data.labels[p], minlength=len(names)).tolist(), strict=True))
        for p in parts
    )
    yield from notes
    yield f"To train on: {of_each(trained)}."
    own_split = data.splits is not None and bool((data.splits == 1).any())
    yield _held_out(held, tested, params.preprocess.holdout_fraction, own_split)
    training = _training_part(data, names, parts[0])
    fitting = fit(params.train, training)
    yield f"Chosen for these images: {fitting.choice or 'nothing, as `train` has no `auto`'}."
    if fitting.advice:
        yield fitting.advice
    yield _how_long(training, params, fitting.params)


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
    if few := [name for name, count in held.items() if count <= TOO_FEW]:
        enough = min(0.5, fraction * WANTED / max(1, min(held.values())))
        advice = f"set `preprocess.holdout_fraction: {enough:.1g}`"
        if own_split:
            advice = "add some to val"
        elif not any(tested.values()):
            advice += ", or bring images to test on (`cgan evidence --test`)"
        text += f" {TOO_FEW} or fewer say nothing about a class ({listed(few)}): {advice}."
    return text


def prices(file: Path, params: Params, sizes: list[tuple[int, int]]) -> str:
    """How long a run takes with pictures of these widths and heights, in words. Takes some seconds."""
    found = []
    for width, height in sizes:  # with other faults than their size, pictures raise those
        sized = params.data.model_copy(update={"height": height, "width": width})
        data, _ = read(file, sized, params.validation)
        names = data.class_names or [str(label) for label in range(data.classes)]
        training = _training_part(data, names, divide(data, names, params.preprocess)[0][0])
        seconds = sum(_seconds(training, params, fit(params.train, training).params))
        found.append(f"about {duration(seconds)} with {width} × {height}")
    return f"A run takes, on this machine, {' and '.join(found)}."


def _training_part(data: LabelledImages, names: list[str], rows: Rows) -> Dataset:
    images, labels = (torch.from_numpy(array[rows]) for array in (data.images, data.labels))
    return Dataset(images, labels, {"classes": len(names), "class_names": names})


def _how_long(training: Dataset, params: Params, fitted: TrainParams) -> str:
    hardware = choose_hardware(fitted.device, fitted.precision)
    taken, judging, rest = _seconds(training, params, fitted)
    return (
        f"Time on this machine ({hardware.device}, {os.cpu_count()} cores): about "
        f"{duration(taken + judging + rest)}: {duration(taken)} for {fitted.total_kimg:g} kimg of the "
        f"generator's training (`train.total_kimg`), {duration(judging)} for judges, {duration(rest)} for "
        "the rest."
    )


def _seconds(training: Dataset, params: Params, fitted: TrainParams) -> tuple[float, float, float]:
    """Of the generator's training, of judges', and of the rest."""
    hardware = choose_hardware(fitted.device, fitted.precision)
    kimg, gan_train = params.train_judge.total_kimg, params.evaluate.gan_train_kimg
    times = 1 + (1 if gan_train is None else gan_train / kimg)
    judging = times * seconds_of_judge(training, params.train_judge, hardware)
    return seconds_of_training(training, fitted), judging, REST_S


def seconds_of_judge(data: Dataset, recipe: JudgeParams, hardware: Hardware) -> float:
    where = hardware.device, hardware.precision
    a_step = seconds_a_step(lambda steps: train_judge(data, recipe, *where, steps))
    return a_step * recipe.total_kimg * 1000 / min(recipe.batch_size, len(data))
