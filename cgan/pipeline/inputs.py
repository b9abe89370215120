"""The inputs of an evaluation, as the stages left them: generator, judge and data, of one origin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cgan.base.errors import DataError
from cgan.base.settings import setting
from cgan.data.images import Images, load_images
from cgan.models.file_facts import Facts
from cgan.models.generative import GenerativeModel
from cgan.models.hardware import find_device
from cgan.models.model_file import load_generator
from cgan.pipeline.project import GENERATOR, HOLDOUT_DATA, JUDGE, TEST_DATA, TRAIN_DATA
from cgan.quality.evaluate import shared_images
from cgan.quality.judge import Judge, load_judge


@dataclass(frozen=True)
class Inputs:
    """`facts`: of the generator's file. `test`: the source's own test set; empty where it has none."""

    model: GenerativeModel
    facts: Facts
    judge: Judge
    train: Images
    held_out: Images
    test: Images

    @classmethod
    def load(cls, device: str = "auto") -> Inputs:
        """The inputs, both models on `device`. Raises DataError or ModelError for a file that is absent or
        damaged, and where generator and judge were not trained on this training part, or the hold-out is of
        another split: then every number would be of something else, and none would show it."""
        model, facts = load_generator(GENERATOR)
        judge, judge_facts = load_judge(JUDGE)
        train, held_out = load_images(TRAIN_DATA), load_images(HOLDOUT_DATA)

        def require(path: Path, what: str, expected: str, found: object) -> None:
            if found != expected:
                raise DataError(
                    f"{path}: {what} than {TRAIN_DATA}: expected {expected[:12]}, found "
                    f"{str(found)[:12]}. Run `dvc repro`, or restore all files with `dvc checkout`."
                )

        require(GENERATOR, "trained on other data", train.digest, facts.get("data_digest"))
        require(JUDGE, "trained on other data", train.digest, judge_facts.get("data_digest"))
        require(HOLDOUT_DATA, "made from other data", train.source_sha256, held_out.source_sha256)
        if shared := shared_images(train, held_out):
            raise DataError(
                f"{HOLDOUT_DATA}: {shared:,} of its {len(held_out):,} images are also in {TRAIN_DATA}, "
                "expected none: they come from different splits (`preprocess.seed` or "
                "`preprocess.holdout_fraction` changed). Make both again: `dvc repro --force preprocess`, "
                "then `dvc repro`."
            )
        found_device = find_device(device, setting("train.device"))
        parts = train, held_out, load_images(TEST_DATA)
        return cls(model.to(found_device), facts, judge.to(found_device), *parts)
