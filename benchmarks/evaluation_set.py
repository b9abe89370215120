"""What all contenders are measured with: one split, one judge, one way to score drawings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import cgan
from cgan.data.images import Images
from cgan.data.read import fetch
from cgan.data.splitting import stratified_split
from cgan.models.hardware import choose_hardware
from cgan.models.networks import Architecture, GeneratorNetwork, build_generator
from cgan.params.presets import preset_params
from cgan.params.sections import DataParams, Params, TrainChoices, TrainParams
from cgan.pipeline.params_file import load_params
from cgan.quality.judge import Judge, Prediction, frechet_distance, predict, train_judge
from cgan.training.auto import resolve

from .machine import ROOT

CACHE = ROOT / ".cgan/bench"
HELDOUT_FRACTION = 10_000 / 42_000
SPLIT_SEED = 2  # what is published; presets are chosen on split 1
DRAW_SEED = 1001


def all_params() -> Params:
    return load_params(ROOT / "params.yaml")


def preset(name: str, **changes: Any) -> TrainParams:
    """`train` of params.yaml under the preset `name`, with changes, as it is for many images."""
    values = all_params().train.model_dump() | preset_params(name) | changes
    return resolve(TrainChoices.model_validate(values))


def fresh_generator(name: str) -> GeneratorNetwork:
    """The untrained network of a preset, for digits."""
    p = preset(name)
    shape = (10, 1, 28, 28)
    return build_generator(
        Architecture(p.generator, *shape, p.generator_width, p.latent_dim, p.max_width)
    )


def kaggle_zip() -> Path:
    return Path(os.environ.get("CGAN_KAGGLE_ZIP", ROOT.parent / "shared/data/digit-recognizer.zip"))


def csv_file(sample: bool = False) -> tuple[Path, str]:
    """A plain CSV in the cache, and what it is in words. `sample`: the embedded one, whatever there is."""
    source = kaggle_zip()
    if source.is_file() and not sample:
        changes = {"source": "file", "path": str(source)}
        about = "the Digit Recognizer's train.csv"
    else:
        changes = {"source": "sample"}
        about = (
            "the embedded 5,000 images, for want of Kaggle's digit-recognizer.zip "
            "(CGAN_KAGGLE_ZIP): distances are higher with fewer images, don't compare them"
        )
    path = CACHE / f"{changes['source']}.csv"
    fetch(
        DataParams.model_validate(all_params().data.model_dump() | changes),
        path,
        path.with_suffix(".safetensors"),
    )
    return path, about


def as_dataset(images: NDArray[np.uint8], labels: NDArray[np.int64], classes: int) -> Images:
    return Images(images, labels, [str(label) for label in range(classes)])


@dataclass
class EvaluationSet:
    """`training` is what contenders may see, `heldout` what their drawings are compared with."""

    training: Images
    heldout: Images
    about: str
    judge_kimg: float | None = None  # None: as params.yaml has it

    @classmethod
    @cache
    def prepare(
        cls, limit: int | None = None, judge_kimg: float | None = None, sample: bool = False
    ) -> EvaluationSet:
        """`limit`: the first images only, for a trial of the benchmarks. `sample`: the embedded images, split
        as the pipeline splits them."""
        params = all_params()
        path, about = csv_file(sample)
        images = cgan.read(path).at(slice(limit))
        own = (params.preprocess.holdout_fraction, params.preprocess.seed)
        parts = stratified_split(images, *(own if sample else (HELDOUT_FRACTION, SPLIT_SEED)))
        training, heldout = map(images.at, parts)
        return cls(training, heldout, about, judge_kimg)

    @cached_property
    def judge(self) -> Judge:
        """Trained on the training part, once."""
        params = all_params().train_judge
        if self.judge_kimg:
            params = params.model_copy(update={"total_kimg": self.judge_kimg})
        hardware = choose_hardware("cpu", "auto")
        return train_judge(self.training, params, hardware)

    @cached_property
    def real(self) -> Prediction:
        return predict(self.judge, self.heldout.tensors.pixels)

    @cached_property
    def floor(self) -> tuple[float, float]:
        """(accuracy, Fréchet distance) of real images in the drawings' place: hold-out against as
        many training images, which no generator can be expected to undercut."""
        order = torch.randperm(
            len(self.training), generator=torch.Generator().manual_seed(DRAW_SEED)
        )
        others = predict(self.judge, self.training.tensors.pixels[order[: len(self.heldout)]])
        accuracy = (self.real.labels == self.heldout.tensors.labels).double().mean().item()
        return accuracy, frechet_distance(self.real.features, others.features)

    def score(self, drawn: Tensor) -> tuple[float, float]:
        """(accuracy, Fréchet distance) of uint8 drawings of the hold-out's classes, one drawing per image, so
        that a difference in the mix of classes is not taken for one in the drawings."""
        seen = predict(self.judge, drawn)
        accuracy = (seen.labels == self.heldout.tensors.labels).double().mean().item()
        return accuracy, frechet_distance(self.real.features, seen.features)
