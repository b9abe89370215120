"""`cgan validate` before an hour is spent: what is held out, what is chosen, and how long it will take."""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from cgan.data.csv_report import FEW
from cgan.data.dataset import Dataset, LabelledImages, Rows
from cgan.data.parts import divide
from cgan.errors import listed
from cgan.model.hardware import choose_hardware
from cgan.params.sections import DataParams, Params
from cgan.project import RUN_PAGE
from cgan.quality.judge import train_judge
from cgan.stages.runner import duration
from cgan.training.fitting import fit
from cgan.training.loop import train

TOO_FEW = 3  # held-out images: they say nothing of a class
WANTED = 10
WARM, TIMED, MOST_S = 2, 6, 10.0  # steps; seconds
SHOWN = 20  # classes


class _Timed(Exception):  # noqa: N818 - no fault: enough steps were timed
    pass


def foresee(found: LabelledImages, names: list[str], params: Params) -> list[str]:
    """Five lines: classes, the hold-out, `auto`, the time, and what to expect; before them what `preprocess`
    will say. Takes some seconds, for it trains a few steps."""
    (train_rows, held, test), _, said = divide(found, names, params.preprocess)
    training = Dataset(
        torch.from_numpy(found.images[train_rows]),
        torch.from_numpy(found.labels[train_rows]),
        {"classes": len(names), "class_names": names},
    )
    fitting = fit(params.train, training)
    trained = _of_each(found, train_rows, names)
    return [
        *said,
        f"To train on: {_in_words(trained)}.",
        _held_out(found, held, test, names, params),
        f"Chosen for these images: {fitting.choice or 'nothing, for `train` has no `auto`'}.",
        _how_long(training, params),
        _expected({name: count for name, count in trained.items() if count < FEW}),
    ]


def next_step(file: Path, params: DataParams) -> str:
    """What makes the run's page of this file, in words."""
    here, found = Path(params.path).resolve(), file.resolve()
    settings = [] if params.source == "file" else ["`data.source: file`"]
    if here not in (found, *found.parents):
        settings.append(f"`data.path: {file}`")
    before = f"set {' and '.join(settings)} in params.yaml, then " if settings else ""
    return f"Next: {before}`dvc repro`; it makes {RUN_PAGE}, the page with drawings and numbers."


def _of_each(found: LabelledImages, rows: Rows, names: list[str]) -> dict[str, int]:
    counts = np.bincount(found.labels[rows], minlength=len(names)).tolist()
    return dict(zip(names, counts, strict=True))


def _in_words(counts: dict[str, int]) -> str:
    if len(set(counts.values())) == 1:
        return f"{max(counts.values()):,} of each of {len(counts)} classes"
    return listed([f"{name} {count:,}" for name, count in counts.items()], SHOWN)


def _held_out(
    found: LabelledImages, held: Rows, test: Rows, names: list[str], params: Params
) -> str:
    counts = _of_each(found, held, names)
    text = f"Held out: {_in_words(counts)}."
    if len(test):
        text += f" For `cgan evidence` to test on: {_in_words(_of_each(found, test, names))}."
    few = [name for name, count in counts.items() if count <= TOO_FEW]
    if few:
        own = found.splits is not None and (found.splits == 1).any()
        fraction = min(
            0.5, params.preprocess.holdout_fraction * WANTED / max(1, min(counts.values()))
        )
        advice = (
            "add some to val"
            if own
            else f"set `preprocess.holdout_fraction: {fraction:.1g}`, or bring a test set (`cgan evidence "
            "--test`)"
        )
        text += f" {TOO_FEW} or fewer say nothing of a class ({listed(few)}): {advice}."
    return text


def _how_long(training: Dataset, params: Params) -> str:
    fitted = fit(params.train, training).params
    hardware = choose_hardware(fitted.device, fitted.precision)
    judge, length = params.train_judge, params.train_judge.total_kimg * 1000
    a_step = timed(
        lambda steps: train_judge(training, judge, hardware.device, hardware.precision, steps)
    )
    judging = a_step * length / min(judge.batch_size, len(training))
    if params.evaluate.gan_train_kimg != 0:
        judging += judging * (params.evaluate.gan_train_kimg or judge.total_kimg) / judge.total_kimg
    taken = timed(lambda steps: train(training, fitted, progress=steps)) * fitted.total_steps
    return (
        f"Time on this machine ({hardware.device}, {os.cpu_count()} cores): about "
        f"{duration(taken + judging)}; {duration(taken)} for {fitted.total_kimg:g} kimg of the generator's "
        f"training (`train.total_kimg`), {duration(judging)} for judges."
    )


def timed(run: Callable[[Callable[[range], Iterator[int]]], object]) -> float:
    """Seconds a step, of a training that ends after a few."""
    times: list[float] = []

    def steps(planned: range) -> Iterator[int]:
        for step in planned:
            times.append(time.perf_counter())
            if len(times) > WARM + TIMED or times[-1] - times[0] > MOST_S:
                raise _Timed
            yield step
        times.append(time.perf_counter())

    with contextlib.suppress(_Timed):
        run(steps)
    passed = [after - before for before, after in itertools.pairwise(times)]
    return statistics.median(passed[WARM:] or passed)


def _expected(few: dict[str, int]) -> str:
    if not few:
        return f"Expected: every class has {FEW} images or more to train on."
    shown = listed([f"{name} ({count})" for name, count in few.items()])
    return (
        f"Expected of {shown}: with fewer than {FEW} images to train on, a few forms again and again, and "
        "copies of the images; compare them on the run's page before you use them."
    )
