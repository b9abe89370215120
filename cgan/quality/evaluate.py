"""`cgan.evaluate`: how good a generator's drawings are, beside real images, by a judge."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from cgan.base.errors import DataError
from cgan.base.notebook import progress_bar
from cgan.base.settings import python_call
from cgan.base.text import listed
from cgan.data.images import Images, image_digests
from cgan.models.generative import GenerativeModel
from cgan.models.hardware import choose_hardware
from cgan.models.model_file import digest_of
from cgan.params.checks import check_section
from cgan.params.sections import EvaluateParams, JudgeParams
from cgan.quality.conditions import Conditions
from cgan.quality.evaluation import Evaluation, Score
from cgan.quality.judge import Judge, Progress, accuracy, require_judge_of, train_judge


class HasModel(Protocol):
    """A `cgan.Generator`, or what has its `model`, which draws."""

    @property
    def model(self) -> GenerativeModel: ...


@python_call
def evaluate(
    generator: HasModel | GenerativeModel,
    train: Images,
    held_out: Images,
    *,
    judge: Judge | None = None,
    test: Images | None = None,
    progress: Progress = progress_bar,
    **params: Any,
) -> Evaluation:
    """How good a generator's drawings are, beside real images.

    `train`: the images that it learnt from; `held_out`: others of the same classes and size, which neither
    it nor the judge has seen. `judge`: a network that was trained to name the classes of `train`
    (`cgan.quality.judge.train_judge`); without one, one is trained first, which takes seconds to minutes.
    `test`: further images of these classes, on which only the judge is tested. `params`: how many drawings
    are judged (`samples=10_000`), with which `seed`; and `gan_train_kimg`, the length of a second judge's
    training, on drawings alone: by default that of the first, 0 for none. Equal arguments give equal numbers
    on one machine with one version of torch.

    Raises DataError where the images are not of one kind, or too few, ParamsError for a param that does not
    exist or does not fit.
    """
    own = "judge", "test", "progress"
    how = check_section(EvaluateParams, "evaluate", params, "cgan.evaluate", *own)
    model = generator if isinstance(generator, GenerativeModel) else generator.model
    require_matching(model, train, held_out, **({"test": test} if test else {}))
    if judge is None:
        hardware = choose_hardware(str(model.device), "auto")
        judge = train_judge(train, JudgeParams(), hardware, partial(progress, "judge"))
    require_judge_of(judge, train)
    conditions = Conditions.of(judge.to(model.device), train, held_out, how, [model])
    evaluation = conditions.measure(model.draw(conditions.drawn_labels, how.seed), progress)
    return replace(
        evaluation,
        context=conditions.context(digest_of(model.state_dict())),
        judge_on_test_set=_on_test_set(judge, test) if test else None,  # it may have no images
    )


def require_matching(
    model: GenerativeModel | Images, train: Images, held_out: Images, **others: Images
) -> None:
    """Raises DataError where images, which are named as arguments, are not of the classes and the size of
    what draws, or was drawn; or where held-out images are training images, too."""
    expected = model.classes, *model.shape
    for name, images in {"train": train, "held_out": held_out, **others}.items():
        if (found := (images.classes, *images.shape)) != expected:
            raise DataError(
                f"{name}: expected the generator's classes, channels, height and width, {expected}; found "
                f"{found}. Give the images it was trained on, and others of the same kind."
            )
        if images.is_named and train.is_named and images.class_names != train.class_names:
            raise DataError(
                f"{name}: expected the classes of train in its order, {listed(train.class_names)}; found "
                f"{listed(images.class_names)}. Make both by `Images.split`, or with one `class_names`."
            )
    if shared := shared_images(train, held_out):
        raise DataError(
            f"held_out: expected images that are not in train; found {shared:,} of {len(held_out):,} that "
            "are. Make both with `train, held_out = images.split(0.1)`, which keeps copies together."
        )


def shared_images(train: Images, held_out: Images) -> int:
    """How many of the held-out images are training images, too."""
    held, trained = (image_digests(part.pixels) for part in (held_out, train))
    return int(np.isin(held, trained).sum())


def _on_test_set(judge: Judge, test: Images) -> Score:
    """How often the judge is right there."""
    right = accuracy(judge, test)
    return Score(value=right.value, interval=right.interval, details={"images": len(test)})
