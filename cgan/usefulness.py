"""`cgan.evidence`: do the drawings of a generator help a classifier?"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cgan import notebook
from cgan.downstream.classifiers import BASELINES, METHOD_NAMES
from cgan.downstream.effect import DRAWN, Effect, effect, pooled
from cgan.downstream.rounds import DEFAULT_ROUNDS, require_seeds, rounds_by_seed, run_rounds
from cgan.downstream.sets import missing_labels
from cgan.images import Images
from cgan.model.hardware import Hardware, choose_hardware, deterministic
from cgan.notebook import progress_bar
from cgan.params.sections import JudgeParams
from cgan.quality.evaluate import require_matching
from cgan.quality.judge import Progress
from cgan.settings import as_keywords
from cgan.text import percent

if TYPE_CHECKING:
    from cgan.drawing.generator import Generator


@dataclass(frozen=True, repr=False)
class Evidence:
    """Whether classifiers gain by drawings. A notebook shows it as a table.

    `accuracies`: by method, in words, the accuracy on the tested images, mean over the classes and seeds.
    `effect`: drawings beside the best method without any; `effect.classes` has each class by its label.
    `rounds`: the seeds that were trained, of `planned` ones.
    """

    effect: Effect
    accuracies: dict[str, float]
    class_names: list[str]
    rounds: int
    planned: int

    @property
    def verdict(self) -> str:
        """`help`, `harm`, or `no difference` that so many tested images could show."""
        return self.effect.overall.verdict

    @property
    def gain(self) -> float:
        """Accuracy with drawings less that of the best method without, mean over the classes."""
        return self.effect.overall.gain

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of the gain, at 95 %."""
        return self.effect.overall.interval

    def __repr__(self) -> str:
        overall, verdict = self.effect.overall, self.verdict
        gain, interval = overall.in_points()
        if verdict == "no difference":
            verdict += f" that {overall.tested:,} tested images could show"
        return (
            f"{verdict}: {percent(overall.with_drawings)} with drawings, {percent(overall.without)} "
            f"without ({METHOD_NAMES[self.effect.baseline]}), a difference of {gain} points ({interval})"
        )

    def _repr_html_(self) -> str:
        accuracies = [("trained on", "accuracy, mean over the classes")]
        accuracies += [(name, percent(value)) for name, value in self.accuracies.items()]
        classes = [("class", "tested images", "without drawings", "with drawings", "difference")]
        for label, difference in self.effect.classes.items():
            shares = percent(difference.without), percent(difference.with_drawings)
            name = self.class_names[label]
            gain, interval = difference.in_points()
            points = f"{gain} points ({interval})"
            classes.append((name, f"{difference.tested:,}", *shares, points))
        parts = [
            notebook.paragraph(f"{self}."),
            notebook.table(accuracies),
            notebook.table(classes),
        ]
        if self.rounds < self.planned:
            parts.append(
                notebook.paragraph(
                    f"Ended after {self.rounds} of {self.planned} seeds: more could not change the verdict. "
                    f"seeds={self.planned} trains all."
                )
            )
        return "".join(parts)


@as_keywords()
def evidence(
    train: Images,
    held_out: Images,
    generator: Generator,
    *,
    per_class: int | None = None,
    seeds: int | None = None,
    recipe: JudgeParams | None = None,
    folder: Path | str | None = None,
    device: str = "auto",
    seed: int = 1,
    progress: Progress = progress_bar,
) -> Evidence:
    """Train classifiers with and without drawings, and test them on images that neither they nor the
    generator have seen. Takes minutes: six classifiers a seed, each as long as a judge. Without `seeds`,
    five are planned, and the rest is left out as soon as it could not change the verdict.

    `train` is what the generator was trained on. The drawings fill up its classes to `per_class` images, by
    default as many as the largest class has (twice that where all are about equal). They are compared with
    the best of the methods that need no generator: augmentation, oversampling, mixup, a class-balanced loss,
    adjusted logits. `recipe`: network and length of each classifier's training; `seed` of the drawings.

    `folder` keeps the classifiers: after an interruption the same call trains only those that are missing.
    Other images, drawings or recipes have classifiers of their own there.

    Where a class has fewer than 50 held-out images, the interval is wide; `cgan evidence` of a project then
    tests on all images, in folds with a generator each.

    Raises DataError where the two sets do not belong together, and CganError where no class lacks images.
    """
    if seeds is not None:
        require_seeds(seeds)
    require_matching(generator.model, train, held_out)
    hardware, recipe = choose_hardware(device, "auto"), recipe or JudgeParams()
    labels = missing_labels(train.tensors.counts, per_class)
    drawn = Images(generator.model.draw(labels, seed), labels, train.class_names)
    with deterministic(), tempfile.TemporaryDirectory(prefix="cgan-") as temporary:
        kept_in = Path(folder or temporary, _folder_name(train, drawn, recipe, hardware))
        planned = seeds or DEFAULT_ROUNDS
        rounds = rounds_by_seed(train, drawn, held_out, recipe, planned, kept_in, hardware)
        outcomes = [*run_rounds(rounds, folded=False, early=not seeds, progress=progress)]
    images = pooled(outcomes)
    return Evidence(
        effect=effect(outcomes, BASELINES, folded=False),
        accuracies={METHOD_NAMES[name]: images.mean_accuracy(name) for name in (*BASELINES, DRAWN)},
        class_names=train.class_names,
        rounds=len(outcomes),
        planned=planned,
    )


def _folder_name(train: Images, drawn: Images, recipe: JudgeParams, hardware: Hardware) -> str:
    """The name of the folder of classifiers that are trained on these images in this way: a digest."""
    facts = train.digest, drawn.digest, recipe.model_dump(), torch.__version__, str(hardware)
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
