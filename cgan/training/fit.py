"""`cgan.fit`: from images to a generator in one call; and `Run`, its result."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cgan.base.errors import CganError, DataError
from cgan.base.files import fingerprint, locked
from cgan.base.progress import progress_bar
from cgan.base.report import Report, Table
from cgan.base.settings import python_call
from cgan.base.text import duration, listed
from cgan.data.images import Images
from cgan.drawing.generator import Generator
from cgan.models.hardware import choose_hardware
from cgan.models.model_file import digest_of, generator_facts
from cgan.models.networks import DiscriminatorNetwork
from cgan.models.sampling import encode_png
from cgan.params.checks import check_section
from cgan.params.presets import preset_params
from cgan.params.sections import AutoTrainParams, TrainParams
from cgan.quality.judge import Judge, require_judge_of
from cgan.training.auto import Choice, choose
from cgan.training.loop import TrainingResult, train_chosen, training_facts
from cgan.training.provenance import determining_facts
from cgan.training.state import HISTORY_COLUMNS, PROBE_COLUMNS, Record

FALLBACK_PREVIEW_CLASSES = 20  # shown by `Run.preview` after a training that made no preview
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A training and its result. A notebook shows it as a table with the last preview.

    >>> pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 12), np.uint8)
    >>> images = cgan.Images(pixels, ["shoe", "bag"] * 20)
    >>> run: cgan.Run = cgan.fit(images, "fast", total_kimg=0.1, batch_size=8, progress=False)
    >>> run
    <Run: upsample; 12 steps of 8 images in ...; seed 1>
    >>> run.step, run.finished, [*run.history][:3]
    (12, True, ['step', 'kimg', 'learning_rate'])

    - `generator` draws images of the classes; `run.generator.save("digits.safetensors")` keeps it;
    - `choice`: the params with a value for each `auto`, and what in the images decided it;
    - `history`: losses and logits, a row per record: means since the record before, with `step` and `kimg`
      (thousands of images seen so far); `probes`: quality by the judge. Empty without a training or judge;
    - `previews`: drawings during the training, as PNG by step: a row per class, a column per latent;
    - `step`: how many were made; `seconds`: the time they took; None where the training was resumed;
    - `discriminator`: whoever has it can find out which images were trained on: keep it to yourself.
    """

    generator: Generator
    choice: Choice
    history: pd.DataFrame
    probes: pd.DataFrame
    previews: dict[int, bytes]
    seconds: float | None
    step: int
    discriminator: DiscriminatorNetwork | None = None

    @property
    def params(self) -> TrainParams:
        """The params of the training, with a value for each `auto`."""
        return self.choice.params

    @property
    def finished(self) -> bool:
        """False where the training was stopped before its last step."""
        return self.step >= self.params.total_steps

    @property
    def preview(self) -> bytes:
        """The last preview as PNG; where there is none, a drawing of each of the first classes."""
        if self.previews:
            return self.previews[max(self.previews)]
        shown = list(range(min(self.generator.classes, FALLBACK_PREVIEW_CLASSES)))
        return encode_png(np.asarray(self.generator.picture(shown)))

    def __repr__(self) -> str:
        return f"<Run: {self.params.generator}; {self._length()}; seed {self.params.seed}>"

    def _length(self) -> str:
        """`1,667 steps of 96 images in 57 s`."""
        if not self.params.total_steps:
            return f"none: a {self.generator.model.description}"
        steps = f"{self.params.total_steps:,} steps"
        done = steps if self.finished else f"{self.step:,} of {steps}"
        time = "" if self.seconds is None else f" in {duration(self.seconds)}"
        return f"{done} of {self.params.batch_size} images{time}"

    def _repr_html_(self) -> str:
        rows = {
            "Generator": self.params.generator,
            "Training": self._length(),
            "Chosen for these images": self.choice.explanation,
            "Advice": self.choice.advice,
            "Last losses": _last_values(self.history),
            "Last probe": _last_values(self.probes),
        }
        return Report(
            question="What was trained?",
            sentence=repr(self).strip("<>"),
            tables=[Table("", ("", ""), [row for row in rows.items() if row[1]])],
            pictures={", ".join(self.generator.class_names): self.preview},
        ).as_html()


def _last_values(records: pd.DataFrame) -> str:
    """`discriminator 0.65, generator 1.2, …`: the last record; "" where there is none."""
    if records.empty:
        return ""
    values = records.iloc[-1].drop(["step", "kimg", "learning_rate"], errors="ignore")
    return ", ".join(f"{str(key).partition('/')[2]} {value:.3g}" for key, value in values.items())


@python_call
def fit(
    images: Images,
    preset: str = "default",
    seed: int = 1,
    folder: Path | str | None = None,
    *,
    judge: Judge | None = None,
    progress: bool = True,
    **params: Any,
) -> Run:
    """Train a generator on images, which draws any of their classes. A minute for digits on two cores.

    >>> pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 12), np.uint8)
    >>> images = cgan.Images(pixels, ["shoe", "bag"] * 20)
    >>> run = cgan.fit(images, "fast", total_kimg=0.1, batch_size=8, progress=False)
    >>> run.generator.draw(["bag", "shoe", "bag"], seed=1).shape
    (3, 8, 12)

    `preset`: default, fast, best, gpu, demo or local_score (`cgan.params.presets`). `params`: any param of a
    training by its name, such as `total_kimg=320.0` or `device="cuda"`; `AutoTrainParams` in
    `cgan.params.sections` has them all, with defaults and limits. Where one is `auto`, the images or
    the machine decide: `run.choice` says what, and why. With the same images, params and torch on one kind of
    machine, the same seed gives the same bytes, also in `dvc repro`.

    `folder` keeps checkpoints: after a crash the same call goes on from the last one, and a finished one
    trains no more. While one call trains there, the same call elsewhere is refused.

    `judge`, trained on the same images, probes the quality during the training, and stops one that collapses
    after the first 32 kimg. `progress=False` shows no bar.

    Ctrl-C, or a notebook's stop button, ends the training after this step: the run has the generator so far,
    and `run.finished` is False. A second one raises KeyboardInterrupt.

    Raises ParamsError for a param that does not exist or does not fit, DataError for fewer than two images,
    none of some class, or a judge of others, CganError for a folder that is in use, and TrainingError where
    the training diverges or collapses.
    """
    if not isinstance(images, Images):
        raise CganError(
            f"cgan.fit: expected labelled images, found {type(images).__name__}. Make them with "
            "`cgan.read(path)` or `cgan.Images(pixels, labels)`."
        )
    if len(images) < 2:
        raise DataError(f"cgan.fit: expected images to train on, found {len(images)}.")
    if empty := images.classes_without_images:
        raise DataError(
            f"cgan.fit: expected images of every class, found none of {listed(empty)}. Add some."
        )
    if judge:
        require_judge_of(judge, images)
    values = preset_params(preset) | {"seed": seed} | params
    own = "preset", "folder", "judge", "progress"
    choices = check_section(AutoTrainParams, "train", values, "cgan.fit", *own)
    hardware = choose_hardware(choices.device, choices.precision)
    choice = choose(choices, images)
    p = choice.params
    training_folder = None
    if folder is not None:
        digest = digest_of(judge.state_dict()) if judge else ""
        training_folder = Path(folder) / fingerprint(determining_facts(p, images, hardware, digest))
    bar = partial(progress_bar, "training", images_per_step=p.batch_size) if progress else iter
    with locked_folder(training_folder), catch_ctrl_c() as was_pressed:
        result = train_chosen(
            images,
            choice,
            judge=judge,
            folder=training_folder,
            progress=bar,
            should_stop=was_pressed,
        )
    run = make_run(result, choice, images)
    if not run.finished:
        saved = "nothing was saved" if folder is None else "the same call goes on from there"
        log.warning(
            f"Stopped at step {run.step:,} of {p.total_steps:,}: the run has the generator so far; {saved}."
        )
    return run


@contextlib.contextmanager
def locked_folder(folder: Path | None) -> Iterator[None]:
    """Hold the folder of a training. Raises CganError where another process or thread trains there."""
    if folder is None:
        yield
        return
    with locked(folder / "lock", wait=False) as is_held:
        if not is_held:
            raise CganError(
                f"cgan.fit: another call with these arguments is training in {folder.parent}. Wait until it "
                "has ended, or give another `folder` or `seed`."
            )
        yield


def _records_table(columns: Sequence[str], records: Sequence[Record]) -> pd.DataFrame:
    table = pd.DataFrame(records, columns=[*columns], dtype=float).astype({"step": int})
    return table.rename(columns=lambda name: name.removeprefix("progress/"))


def make_run(result: TrainingResult, choice: Choice, images: Images) -> Run:
    """The public form of a result."""
    facts = generator_facts(result.generator, training_facts(result, choice, images))
    return Run(
        generator=Generator(result.generator, facts),
        choice=choice,
        history=_records_table(HISTORY_COLUMNS, result.history),
        probes=_records_table(PROBE_COLUMNS, result.probes),
        previews=result.previews,
        seconds=None if result.resumed_from else result.wall_time_s,
        step=result.step,
        discriminator=result.discriminator,
    )


@contextlib.contextmanager
def catch_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C was pressed. A second one goes to the previous handler."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield lambda: False
        return
    pressed = threading.Event()

    def on_first_press(*_: object) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, on_first_press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
