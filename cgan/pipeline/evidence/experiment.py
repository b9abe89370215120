"""`cgan evidence`: does a classifier gain by drawings? A report and a page, which go to the run in MLflow."""

import functools
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cgan.downstream import pretrained
from cgan.downstream.classifiers import BASELINES, METHODS, Round
from cgan.downstream.effect import DRAWN, Outcome, effect
from cgan.downstream.rounds import (
    DEFAULT_ROUNDS,
    folds_of,
    near_to_training,
    rounds_by_fold,
    rounds_by_seed,
    run_rounds,
    with_pretrained,
)
from cgan.downstream.sets import fill_classes, missing_labels, require_unseen
from cgan.errors import CganError, DataError
from cgan.files import locked, require_writable, sha256_of
from cgan.images import Images, image_digests, load_images
from cgan.model.hardware import (
    Hardware,
    available_threads,
    choose_hardware,
    compute_deterministically,
)
from cgan.params.sections import JudgeParams, Params
from cgan.pipeline.evidence.publish import publish
from cgan.pipeline.evidence.report import report_on
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.progress import progress as progress_of
from cgan.pipeline.progress import seconds_of_judge, seconds_of_training
from cgan.pipeline.whole_data import whole_data
from cgan.project import (
    EVIDENCE,
    EVIDENCE_PAGE,
    EVIDENCE_TEXT,
    HOLDOUT_DATA,
    PACKAGE,
    TEST_DATA,
    TRAIN_DATA,
    home,
)
from cgan.quality.judge import Progress
from cgan.readers.sources import read_source
from cgan.text import duration, listed, percent
from cgan.training.auto import choose

MIN_HELD_OUT = 50  # images of each class; with fewer, folds test all that there are
HOLD_OUT, TEST_SET = "the hold-out", "the test set"
# Of two seeds the interval has one degree of freedom, and is three times as wide as of three. Seconds of this
# machine, for all classifiers.
QUICK_SEEDS, QUICK_S = 3, 90.0
QUICK_DRAWING_S = 60.0  # seconds of a core, for all drawings of a local score sampler
DISAGREE = 0.1  # the share of the images on which two classifiers differ, about
MAX_PRETRAINED_IMAGES = 20_000  # images, at most, that the pretrained network looks at: 60 a second
KEPT_EXPERIMENTS = 3  # the one at hand among them, whose classifiers stay
# The code that decides an answer.
CODE_FILES = ("splitting.py", "downstream/*.py", "model/*.py", "quality/judge.py", "training/*.py")


@dataclass(frozen=True)
class Options:
    """The options of the command. `folds` or `seeds`: how many rounds, None for what fits the data; `test`:
    labelled images to be tested on; `drawn`: a folder of drawings in place of the generator's; `quick`: three
    seeds of short trainings."""

    per_class: int | None = None
    believed: float = 0.0
    folds: int | None = None
    seeds: int | None = None
    test: Path | None = None
    drawn: Path | None = None
    quick: bool = False


def find_evidence(params: Params, options: Options, say: Callable[[str], None]) -> None:
    """Train the classifiers, write and show the report.

    Raises DataError or CganError where images, drawings or options do not fit.
    """
    if options.folds and (options.seeds or options.test):
        raise CganError(
            "--folds tests on all images, so it excludes --seeds and --test. Leave out --folds or the others."
        )
    if options.quick and (options.folds or options.seeds):
        raise CganError(
            "--quick trains with three seeds, so it excludes --folds and --seeds. Leave out one of them."
        )
    if options.drawn and (options.per_class or options.believed):
        raise CganError("--drawn takes all drawings: leave out --per-class and --believed.")
    require_writable(EVIDENCE)
    compute_deterministically()
    hardware = choose_hardware(params.train.device, "auto")
    training, progress = load_images(TRAIN_DATA), functools.partial(progress_of, say=say)
    test, tested_on = _test_set(params, options, training, say)
    on_own_test_set = tested_on == TEST_SET and not options.drawn
    too_few = (tested_on == HOLD_OUT or on_own_test_set) and int(test.counts.min()) < MIN_HELD_OUT
    folds = options.folds or (
        DEFAULT_ROUNDS if too_few and not options.seeds and not options.quick else 0
    )
    if folds and not options.folds:
        rarest = int(test.counts.argmin())
        say(
            f"{tested_on[0].upper()}{tested_on[1:]} has only {test.counts[rarest]:,} images of class "
            f"{test.class_names[rarest]}. So all images are tested on, in {folds} folds, each with its own "
            f"generator; `--seeds {DEFAULT_ROUNDS}` tests on {tested_on} alone, and is quicker."
        )
    if options.quick:
        params = _quick(params, training, test, hardware, say)
    recipe = params.train_judge
    if folds:
        more = test if on_own_test_set and not options.folds else None
        tested_on, data = f"each of {folds} folds", whole_data(more)
        fold_of, drawn = folds_of(data, folds, params), options.drawn
        others = _read_drawings_by_fold(drawn, folds, params, data, say) if drawn else []
        drawings: list[object] = [part.digest for part in others]
        if not drawn:
            seed, recipe_of_generators = params.evaluate.seed, params.train.model_dump()
            drawings = [options.per_class, options.believed, seed, recipe_of_generators]
        folder = _folder(recipe, hardware, data.digest, fold_of.tolist(), drawings)
        rounds = rounds_by_fold(
            data,
            fold_of,
            params,
            per_class=options.per_class,
            min_confidence=options.believed,
            drawings_by_fold=others,
            folder=folder,
            hardware=hardware,
            progress=progress,
        )
    else:
        filled = _drawings(params, options, training, say)
        seeds = QUICK_SEEDS if options.quick else options.seeds or DEFAULT_ROUNDS
        if options.drawn:
            require_unseen(filled.tensors.pixels, test.tensors.pixels)
        folder = _folder(recipe, hardware, training.digest, filled.digest)
        rounds = rounds_by_seed(training, filled, test, recipe, seeds, folder, hardware)
    with locked(folder.with_suffix(".lock")):
        folder.mkdir(parents=True, exist_ok=True)
        tidy(folder)
        generators = 0 if options.drawn else folds
        # Who asked for so many gets them; the last of a quick answer's few makes its interval bearable.
        early = not (options.folds or options.seeds or options.quick)
        outcomes = _carried_out(rounds, generators, params, hardware, say, progress, early)
        planned, rounds = len(rounds), rounds[: len(outcomes)]
        if (
            not options.quick
            and pretrained.is_installed()
            and len(training) <= MAX_PRETRAINED_IMAGES
        ):
            outcomes = with_pretrained(rounds, outcomes, progress)
    result = effect(outcomes, BASELINES, folded=bool(folds))
    near = near_to_training(rounds, folded=bool(folds))
    report, tables = report_on(result, outcomes, rounds, bool(folds), tested_on, near)
    report.facts["rounds"]["planned"] = planned
    if len(rounds) < planned:
        report.reasons.append(
            f"Ended after {len(rounds)} of {planned} rounds: more could not change the verdict. `--"
            f"{'folds' if folds else 'seeds'} {planned}` asks for all."
        )
    if options.quick:
        report.reasons.append(
            "A quick answer, of short trainings with three seeds: without --quick the interval is narrower "
            "and the classifiers are better."
        )
        if not options.drawn and len(filled) < (wanted := len(_lacking(training, options))):
            report.reasons.append(
                f"Filled up with {len(filled):,} of {wanted:,} drawings, for each takes its time: without "
                "--quick with all."
            )
    paths = EVIDENCE, EVIDENCE_TEXT, EVIDENCE_PAGE
    publish(report, paths, "evidence.html", options.drawn, say, tables=tables)


# --- what is tested on, and what fills up the classes --------------------------------------------


def _test_set(
    params: Params, options: Options, training: Images, say: Callable[[str], None]
) -> tuple[Images, str]:
    """The images of `--test` that are not in the training part, or the data's own test set, or the hold-out;
    and which it is."""
    path = options.test
    if not path:
        test = load_images(TEST_DATA) if TEST_DATA.is_file() else None  # empty if there is none
        return (test, TEST_SET) if test else (load_images(HOLDOUT_DATA), HOLD_OUT)
    data = read_labelled(path, params, training)
    trained_on, digests = (image_digests(part.pixels) for part in (training, data))
    new = ~np.isin(digests, trained_on)
    if not new.all():
        say(f"{path}: {(~new).sum():,} images are in the training part too and are left out.")
    if not new.any():
        raise DataError(
            f"{path}: all images are in the training part too. Give other images to test on."
        )
    return data.at(np.flatnonzero(new)), str(path)


def read_labelled(path: Path, params: Params, data: Images) -> Images:
    """The images of a CSV, archive or folder, with the labels that `data` has for their classes.

    Raises DataError where shape or classes are others.
    """
    channels, height, width = data.shape
    # Classes and names are compared below: a folder may lack some.
    known = {"channels": channels, "height": height, "width": width}
    expected = params.validation.model_copy(update={**known, "classes": None, "class_names": None})
    source, _ = read_source(path, params.data, expected)
    if source.shape != data.shape or source.classes > data.classes:
        raise DataError(
            f"{path}: {source.classes} classes of shape {source.shape}; expected at most "
            f"{data.classes} of {data.shape} (channels, height, width). Give such images."
        )
    labels, classes = source.labels, data.class_names
    if source.is_named:  # of folders, which are in an order of their own
        names = source.class_names
        if unknown := [name for name in names if name not in classes]:
            raise DataError(
                f"{path}: expected the project's classes, {listed(classes)}; found {unknown[0]!r}. Rename or "
                "remove that class."
            )
        labels = np.array([classes.index(name) for name in names])[labels]
    order = np.argsort(labels, kind="stable")  # by class, as a generator is asked for them
    return replace(source, labels=labels, class_names=data.class_names).at(order)


def _read_drawings(
    folder: Path, params: Params, data: Images, say: Callable[[str], None]
) -> Images:
    """Somebody else's drawings; says of which classes there are none."""
    drawn = read_labelled(folder, params, data)
    without = (data.counts < data.counts.max()) & (drawn.counts == 0)
    if names := [data.class_names[n] for n in np.flatnonzero(without)]:
        say(f"{folder}: no drawings of {listed(names)}, so nothing is added to these classes.")
    return drawn


def _read_drawings_by_fold(
    folder: Path, count: int, params: Params, data: Images, say: Callable[[str], None]
) -> list[Images]:
    names = [folder / f"fold-{fold + 1}" for fold in range(count)]
    if absent := [name for name in names if not name.is_dir()]:
        raise DataError(
            f"{absent[0]}: not found. Each fold needs drawings by a generator that has not seen its test "
            "images. If one generator learnt from the project's training part, use --seeds 5 instead of "
            "--folds."
        )
    return [_read_drawings(name, params, data, say) for name in names]


def _drawings(
    params: Params, options: Options, training: Images, say: Callable[[str], None]
) -> Images:
    if options.drawn:
        return _read_drawings(options.drawn, params, training, say)
    inputs, lacking = Inputs.load(params.train.device), _lacking(training, options)
    if each := inputs.model.seconds_per_drawing:
        if options.quick:
            lacking = some_of(lacking, int(QUICK_DRAWING_S / each))
        seconds = len(lacking) * each / available_threads()
        say(f"Drawing {len(lacking):,} images, about {duration(seconds)} on this machine.")
    seed, names = params.evaluate.seed, training.class_names
    images, _ = fill_classes(inputs.model, inputs.judge, lacking, seed, options.believed, names)
    return Images(images, lacking, training.class_names)


def _lacking(training: Images, options: Options) -> torch.Tensor:
    return missing_labels(training.tensors.counts, options.per_class)


def some_of(labels: torch.Tensor, most: int) -> torch.Tensor:
    """At most so many of labels that are in order, about the same share of each; at least one."""
    count = max(1, min(most, len(labels)))
    return labels[torch.arange(count) * len(labels) // count]


def _quick(
    params: Params, training: Images, test: Images, hardware: Hardware, say: Callable[[str], None]
) -> Params:
    """Params with trainings as short as the time allows; says how wide the interval will be."""
    recipe, classifiers = params.train_judge, QUICK_SEEDS * len(METHODS)
    seconds = classifiers * seconds_of_judge(training, recipe, hardware)
    kimg = max(0.1, round(recipe.total_kimg * min(1.0, QUICK_S / seconds), 1))
    counts = test.counts[test.counts > 0]
    reach = 196 * math.sqrt(DISAGREE * float((1 / counts).sum())) / len(counts)
    say(
        f"A quick answer: {classifiers} classifiers of {kimg:g} thousand images each, in place of "
        f"{recipe.total_kimg:g}. With {len(test):,} tested images expect an interval of ±{reach:.1f} points "
        "or, where the seeds differ, more; a smaller difference will not show."
    )
    short = recipe.model_copy(update={"total_kimg": kimg})
    return params.model_copy(update={"train_judge": short})


# --- carrying it out -----------------------------------------------------------------------------


def _folder(recipe: JudgeParams, hardware: Hardware, *images_and_drawings: object) -> Path:
    """The folder of the classifiers that are trained in this way, on these images and drawings."""
    files = [file for name in CODE_FILES for file in sorted(PACKAGE.glob(name))]
    facts = {
        "code": [sha256_of(path) for path in files],
        "recipe": recipe.model_dump(),
        "images and drawings": images_and_drawings,
        "torch": [torch.__version__, str(hardware.device), str(hardware.precision)],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return home() / "evidence" / digest


def _carried_out(
    rounds: list[Round],
    generators: int,
    params: Params,
    hardware: Hardware,
    say: Callable[[str], None],
    progress: Progress,
    early: bool,
) -> list[Outcome]:
    """The outcomes of all rounds; with `early`, of the first ones, where more cannot change the verdict."""
    first, recipe, count = rounds[0].training, params.train_judge, len(rounds) * len(METHODS)
    seconds = count * seconds_of_judge(first, recipe, hardware)
    if generators:
        choice = choose(params.train, first)
        if choice.sampler:  # nothing to train, but each drawing takes its time
            each = choice.sampler.seconds_per_drawing
            seconds += sum(len(round_.missing_labels) for round_ in rounds) * each
            generators = 0
        else:
            seconds += generators * seconds_of_training(first, choice.params)
    of_generators = f"{generators} generators and " if generators else ""
    say(
        f"{len(rounds)} rounds: {of_generators}{count} classifiers to train on some {len(first):,} real "
        f"images, about {duration(seconds)} on this machine ({hardware.device}). If this is interrupted, run "
        "the command again, and it continues."
    )
    began, outcomes = time.monotonic(), list[Outcome]()
    folded = rounds[0].test is not rounds[-1].test
    for done, outcome in enumerate(run_rounds(rounds, folded, early, progress), start=1):
        outcomes.append(outcome)
        remaining = (time.monotonic() - began) / done * (len(rounds) - done)
        so_far = ""
        if done > 1:
            _, interval = effect(outcomes, BASELINES, folded).overall.in_points()
            so_far = f"; so far {interval} points (95 %)"
        name = rounds[done - 1].name
        say(
            f"{name[0].upper()}{name[1:]}: {percent(outcome.mean_accuracy(DRAWN))} right with "
            f"drawings, {percent(max(map(outcome.mean_accuracy, BASELINES)))} without; "
            f"{duration(remaining)} left{so_far}."
        )
    if len(outcomes) < len(rounds):
        say(
            f"More rounds could not change the verdict: ended after {len(outcomes)} of {len(rounds)}."
        )
    return outcomes


def tidy(folder: Path) -> None:
    """Remove the classifiers of answers before the last few, but for those that a command is at. Empty locks
    stay: somebody may wait for one."""
    folders = [path for path in folder.parent.iterdir() if path.is_dir() and path != folder]
    for old in sorted(folders, key=lambda path: path.stat().st_mtime)[: -(KEPT_EXPERIMENTS - 1)]:
        with locked(old.with_suffix(".lock"), wait=False) as is_idle:
            if is_idle:
                shutil.rmtree(old, ignore_errors=True)
