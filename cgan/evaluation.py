"""How good a generator's drawings are: what `evaluate` measured, in memory and as evaluation.json.

Whoever shows a number (page, card, tables, gate, service) reads it here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cgan import notebook
from cgan.errors import CganError
from cgan.files import read_json, write_json
from cgan.text import percent

Interval = tuple[float, float]  # at 95 %
QUALITY = "quality/"  # before the metrics of an evaluation in MLflow
# Keys of a context in which evaluations may differ and be compared. Of fewer drawings intervals are wider.
FREE_KEYS = {"generator_digest", "drawn_images"}
# The key of a context that says how many images a metric is taken of, where its value depends on that (a
# Fréchet distance falls with it).
SAMPLE_SIZE_KEYS = {
    "fid_judge": "distance_images",
    "recall": "neighbour_images",
    "coverage": "neighbour_images",
}


@dataclass(frozen=True)
class Metric:
    """`key`: of metrics.json. `short_name`: only of the few that lead where there is room for three or four
    numbers. `is_share`: a share of all drawings or images, between 0 and 1."""

    key: str
    name: str
    meaning: str
    better: str = "higher"  # or "lower"
    short_name: str = ""
    is_share: bool = True

    @property
    def tracked_key(self) -> str:
        """Its name in MLflow."""
        return f"{QUALITY}{self.key}"

    @property
    def arrow(self) -> str:
        """The direction of better."""
        return "↑" if self.better == "higher" else "↓"

    def shown(self, value: float) -> str:
        """A value for readers: `98.6 %`, `0.335`; a dash for what is no number."""
        if not math.isfinite(value):
            return "–"
        if self.is_share:
            return percent(value)
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")

    def bounded(self, interval: Interval) -> Interval:
        """An interval within what the metric can be: not below 0, and a share at most 1."""
        low, high = interval
        return max(0.0, low), min(1.0, high) if self.is_share else high


METRICS = {
    metric.key: metric
    for metric in (
        Metric(
            "conditional_accuracy",
            "conditional accuracy",
            "share of drawings that show the class asked for, mean over classes",
            short_name="accuracy",
        ),
        Metric(
            "fid_judge",
            "Fréchet distance",
            "how far the drawings are from held-out real images, in the judge's features",
            "lower",
            short_name="distance",
            is_share=False,
        ),
        Metric(
            "coverage", "coverage", "share of real images with a drawing in their neighbourhood"
        ),
        Metric(
            "recall",
            "recall",
            "share of real images that are in the neighbourhood of a drawing",
            short_name="recall",
        ),
        Metric(
            "worst_class_accuracy",
            "accuracy of the worst class",
            "conditional accuracy of the class that fares worst",
        ),
        Metric(
            "worst_class_diversity",
            "diversity of the worst class",
            "how far a drawing is from the most similar of 24 others, moved ones included, in the class that "
            "fares worst; 1 is like real",
            is_share=False,
        ),
        Metric(
            "gan_train_accuracy",
            "GAN-train accuracy",
            "on real images, of a classifier that was trained on drawings alone; mean over classes",
            short_name="GAN-train",
        ),
        Metric(
            "copies",
            "copies",
            "drawings nearer to a training image than unseen real images are, even if moved, turned or noisy",
            "lower",
        ),
    )
}

RANKED_BY = "fid_judge"  # the metric that says which of several runs is the best


@dataclass(frozen=True, kw_only=True)
class Score:
    """A metric's `value`, and `real`: what real images get in place of drawings. None: not known.

    `interval` and `real_interval`: at 95 %. `replicates` and `real_replicates`: by the bootstrap, or with the
    variance of a jackknife, less the value (`quality.estimates`); generators that were measured alike had the
    same latents and images, which were resampled alike. `details`: other numbers by their names.
    """

    value: float | None = None
    real: float | None = None
    interval: Interval | None = None
    real_interval: Interval | None = None
    replicates: Sequence[float] = field(default=(), repr=False)
    real_replicates: Sequence[float] = field(default=(), repr=False)
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """A class by itself; None where too few images show it. `heldout`: its held-out images.

    `accuracy`: share of the drawings asked for that the judge takes for it; `real_accuracy`: of its held-out
    images. `diversity`: as a fraction of that of its training images. `copies`: how many of `compared`
    drawings are nearer to a training image than real images are.
    """

    heldout: int = 0
    accuracy: float | None = None
    accuracy_interval: Interval | None = None
    real_accuracy: float | None = None
    diversity: float | None = None
    diversity_interval: Interval | None = None
    copies: int = 0
    compared: int = 0


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation:
    """The measurements of a generator's drawings, beside real images.

    `metrics`: by the keys of `METRICS`; `classes`: a row each, in the order of the labels. `confusion`:
    drawings by the class asked for and the one that the judge sees. `context`: what every number depends on;
    `comparable` says of two evaluations whether they can be compared. `not_measurable`: why
    metrics have no value, where the judge may be no better than one that guesses. `judge_on_test_set`: how
    often the judge is right on the data's own test set, where there is one.
    """

    metrics: Mapping[str, Score]
    classes: Sequence[ClassScores] = ()
    confusion: Sequence[Sequence[int]] = ()
    context: Mapping[str, Any] = field(default_factory=dict)
    not_measurable: str = ""
    class_names: Sequence[str] | None = None
    judge_on_test_set: Score | None = None

    def score(self, key: str) -> Score:
        """The score of a metric; without a value where it was not measured."""
        return self.metrics.get(key, Score())

    @property
    def names(self) -> list[str]:
        """The names of the classes; their numbers where they have none."""
        return [*(self.class_names or map(str, range(len(self.classes))))]

    def is_of(self, facts: Mapping[str, Any]) -> bool:
        """Is it about the generator that has these facts? No, where the facts have no digest."""
        digest = facts.get("digest")
        return digest is not None and bool(self.context.get("generator_digest") == digest)

    def rows(self) -> list[tuple[Metric, Score]]:
        """The metrics that were measured, in the order of `METRICS`, as tables and pages show them."""
        return [
            (metric, self.metrics[key])
            for key, metric in METRICS.items()
            if self.score(key).value is not None
        ]

    def table(self) -> list[list[str]]:
        """Each metric with its interval, what real images get and what it means; a header first."""
        rows = [["metric", "drawn", "95 % interval", "real images", "better", "meaning"]]
        for metric, score in self.rows():
            value, real = (
                "" if number is None else metric.shown(number)
                for number in (score.value, score.real)
            )
            interval = ""
            if score.interval and score.value is not None and math.isfinite(score.value):
                interval = " to ".join(map(metric.shown, score.interval))
            rows.append([metric.name, value, interval, real, metric.better, metric.meaning])
        return rows

    def __repr__(self) -> str:
        """For a terminal: each metric on a line."""
        lines = []
        for name, value, interval, real, *_ in self.table()[1:]:
            line = f"{name}: {value}"
            if interval:
                line += f" ({interval})"
            if real:
                line += f", real images {real}"
            lines.append(line)
        return "\n".join(lines) or f"<Evaluation: {self.not_measurable or 'nothing was measured'}>"

    def _repr_html_(self) -> str:
        """For a notebook."""
        html = notebook.table(self.table())
        if self.not_measurable:
            html += notebook.paragraph(f"Not measurable: {self.not_measurable}.")
        return html

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, self.as_json())

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """Raises CganError for a file that is absent, damaged, or that this version cannot read."""
        facts = read_json(path)
        try:
            return cls.of_json(facts)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise CganError(
                f"{path}: this version cannot read the evaluation in it. Write it again: `dvc repro --force "
                "evaluate`."
            ) from None

    def as_json(self) -> dict[str, Any]:
        """The mapping that `of_json` reads."""
        return asdict(self)

    @classmethod
    def of_json(cls, facts: dict[str, Any]) -> Evaluation:
        """The evaluation that `as_json` made this mapping of. Raises KeyError, TypeError, ValueError or
        AttributeError for any other."""
        facts = dict(facts)
        on_test_set = facts.pop("judge_on_test_set", None)
        return cls(
            metrics={key: Score(**_tuples(row)) for key, row in facts.pop("metrics").items()},
            classes=[ClassScores(**_tuples(row)) for row in facts.pop("classes", ())],
            context=dict(facts.pop("context", {})),
            judge_on_test_set=Score(**_tuples(on_test_set)) if on_test_set else None,
            **facts,
        )


def comparable(context: Mapping[str, Any], key: str = "") -> dict[str, Any]:
    """The part of an evaluation's context that has to be equal where two are compared; with a metric's key,
    where this metric is."""
    sample_sizes = set(SAMPLE_SIZE_KEYS.values()) - {SAMPLE_SIZE_KEYS.get(key)}
    free = FREE_KEYS | sample_sizes
    return {name: value for name, value in context.items() if name not in free}


def context_differences(
    a: Mapping[str, Any], b: Mapping[str, Any], key: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Where the `comparable` parts of two contexts differ; empty if the evaluations, or this metric of
    theirs, can be compared."""
    a, b = comparable(a, key), comparable(b, key)
    names = sorted(a.keys() | b.keys())
    return {name: (a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)}


def _tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a score or a class, as they were before JSON made lists of tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
