"""Answer of `cgan.evaluate`: scores of a generator's drawings beside real images, as a report and as JSON.

A score says what its metric is. So whoever shows a number (page, card, tables, service) reads it here alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cgan.base.errors import CganError
from cgan.base.files import read_json, write_json
from cgan.base.report import CANNOT_TELL, Answer, Interval, Kind, Number, Report, Table, as_text
from cgan.base.text import percent
from cgan.quality.proportions import joint_z, proportion_interval, wilson_interval

if TYPE_CHECKING:
    from cgan.quality.evaluate import DrawnSet

# An interval of real images' accuracy that is wider is given in the sentence.
WIDE_INTERVAL = 0.05
# Why drawings can be right more often than real images.
ABOVE_REAL = "odd ones are misread more often"


@dataclass(frozen=True, kw_only=True)
class MetricFacts:
    """What a metric is. `sample_size_key`: the key in a context of the number of images that it is computed
    from, where its value depends on that (a Fréchet distance falls as it grows)."""

    key: str = ""
    name: str = ""
    meaning: str = ""
    better: Literal["higher", "lower"] = "higher"
    kind: Kind = "share"
    sample_size_key: str = ""


@dataclass(frozen=True, kw_only=True)
class Score(Number, MetricFacts):
    """A metric's `value` with its 95 % interval, and `real`: what real images get in place of drawings.

    `deviations` and `real_deviations`: of the replicates (`quality.intervals`). Generators that were measured
    alike had the same latents and images, which were resampled alike.
    """

    real_interval: Interval | None = None
    deviations: Sequence[float] = field(default=(), repr=False)
    real_deviations: Sequence[float] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class Metric(MetricFacts):
    """A metric, which stands beside its formula. `measure`: its numbers for drawings, None where they are not
    known."""

    measure: Callable[[DrawnSet], Score | None]

    @property
    def facts(self) -> dict[str, Any]:
        return {fact.name: getattr(self, fact.name) for fact in fields(MetricFacts)}

    def score(self, drawn: DrawnSet) -> Score:
        """The numbers of drawings, with what they mean, within what the metric can be."""
        found = replace(self.measure(drawn) or Score(), **self.facts)
        most = 1.0 if self.kind == "share" else math.inf
        real, interval = found.real, found.interval
        if interval:
            interval = max(0.0, interval[0]), min(most, interval[1])
        return replace(found, interval=interval, real=None if real is None else min(most, real))


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of a class; None where too few images show them. `heldout`: its held-out images.

    `accuracy`: share of its drawings that the judge recognises; `real_accuracy`: of its held-out
    images. `diversity`: as a fraction of that of its training images. `copies`: how many of `compared`
    drawings are nearer to a training image than real images are; `real_copies`, how many of `real_compared`
    real images are.
    """

    heldout: int = 0
    accuracy: float | None = None
    accuracy_interval: Interval | None = None
    real_accuracy: float | None = None
    diversity: float | None = None
    diversity_interval: Interval | None = None
    copies: int = 0
    compared: int = 0
    real_copies: int = 0
    real_compared: int = 0


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation(Answer):
    """Measurements of a generator's drawings, beside real images.

    `metrics`: by their keys; `classes`: a row each, in the order of the labels. `confusion`: drawings by the
    class asked for and the one that the judge sees. `context`: what every number depends on.
    `min_judge_accuracy`: on real images; a judge below it cannot tell how good drawings are.
    `judge_on_test_set`: how often it is right on the data's own test set, where there is one.

    >>> evaluation = cgan.evaluate(run.generator, train, held_out, samples=300, gan_train_kimg=0)
    >>> evaluation.is_about(run.generator.facts), evaluation.classes_below_real(0.0)
    (True, [])
    >>> for label, words in evaluation.weakest_classes():
    ...     accuracy, diversity = evaluation.upper_shares_of_real(label)
    >>> evaluation.write(Path("evaluation.json"))
    >>> again = cgan.Evaluation.read(Path("evaluation.json"))
    >>> again.values()["recall"] == round(evaluation.score("recall").value, 5)
    True
    >>> cgan.Evaluation.from_json(again.report().as_json()) == again
    True
    """

    metrics: Mapping[str, Score]
    classes: Sequence[ClassScores] = ()
    confusion: Sequence[Sequence[int]] = ()
    context: Mapping[str, Any] = field(default_factory=dict)
    min_judge_accuracy: float = 0.9
    class_names: Sequence[str] | None = None
    judge_on_test_set: Number | None = None

    def score(self, key: str) -> Score:
        """The score of a metric; without a value where it was not measured."""
        return self.metrics.get(key, Score(key=key))

    def values(self) -> dict[str, float]:
        """The metrics that have a value, for DVC and MLflow."""
        scores = self.metrics.items()
        return {key: round(score.value, 5) for key, score in scores if score.value is not None}

    @property
    def names(self) -> list[str]:
        """The names of the classes; their numbers where they have none."""
        return [*(self.class_names or map(str, range(len(self.classes))))]

    def is_about(self, facts: Mapping[str, Any]) -> bool:
        """Whether it is about the generator that has these facts; no, where they have no digest."""
        digest = facts.get("digest")
        return digest is not None and bool(self.context.get("generator_digest") == digest)

    @property
    def judge_weakness(self) -> str:
        """Why the judge cannot tell how good the drawings are; empty where it can. Whoever calls a class or a
        run good asks this first."""
        real = self.score("conditional_accuracy").real
        if real is None or real >= self.min_judge_accuracy:
            return ""
        needed = percent(self.min_judge_accuracy, 0)
        return f"it is right on only {percent(real)} of real images, where {needed} are needed"

    def upper_shares_of_real(self, label: int) -> tuple[float, float]:
        """Upper bounds of a class's accuracy and diversity as fractions of real images', at 95 % for all
        classes together (Bonferroni): below 1, it is behind by more than chance. Infinite where it is not
        known."""
        row = self.classes[label]
        z = joint_z(len(self.classes))
        accuracy = diversity = math.inf
        if row.accuracy is not None and row.real_accuracy:
            _, high = proportion_interval(row.accuracy, sum(self.confusion[label]), z)
            accuracy = high / proportion_interval(row.real_accuracy, row.heldout, z)[0]
        if row.diversity is not None and row.diversity_interval:
            reach = row.diversity_interval[1] - row.diversity
            diversity = row.diversity + z / joint_z(1) * reach
        return accuracy, diversity

    def classes_below_real(self, part: float) -> list[int]:
        """The labels of the classes whose drawings the judge clearly sees right less often than this part of
        what it sees of real images: even the upper end of their interval, at 95 % for all classes together
        (Bonferroni), lies below. Few are held out, so real images count as the middle of their Wilson
        interval: the best of a few is no better than many."""
        drawn = [sum(row) for row in self.confusion]
        z = joint_z(max(1, sum(count > 0 for count in drawn)))
        short = []
        for label, row in enumerate(self.classes):
            if drawn[label] and row.real_accuracy:
                real = sum(proportion_interval(row.real_accuracy, row.heldout)) / 2
                if wilson_interval(self.confusion[label][label], drawn[label], z)[1] < part * real:
                    short.append(label)
        return short

    def weakest_classes(self) -> list[tuple[int, str]]:
        """The classes that are clearly behind real images, in accuracy or diversity, the weakest first: the
        label of each, and in words in what it is further behind."""
        found = []
        for label, row in enumerate(self.classes):
            accuracy, diversity = self.upper_shares_of_real(label)
            words = f"{as_text(row.diversity, digits=0)} as diverse as real images"
            if accuracy < diversity:
                real = f"its {row.heldout:,} held-out images {as_text(row.real_accuracy)}"
                words = f"{as_text(row.accuracy)} right, {real}"
            found.append((min(accuracy, diversity), label, words))
        return [(label, words) for share, label, words in sorted(found) if share < 1]

    def report(self, training_s: float | None = None) -> Report:
        """The answer in a sentence, which tells the seconds of the training where they are known, with a
        table of the metrics that have a value, and one of the classes."""
        measured = [score for score in self.metrics.values() if score.value is not None]
        of_metrics = Table(
            "Beside real images",
            ("metric", "drawings", "95 % interval", "real images", "better"),
            [
                (row.name, row, row.interval_in_words, as_text(row.real, row.kind), row.better)
                for row in measured
            ],
            notes=[score.meaning for score in measured],
        )
        of_classes = Table(
            "Class by class",
            ("class", "right", "real images right", "diversity", "held-out images"),
            [
                (
                    name,
                    Number(value=row.accuracy, interval=row.accuracy_interval).with_interval,
                    Number(value=row.real_accuracy),
                    Number(value=row.diversity, interval=row.diversity_interval).with_interval,
                    row.heldout,
                )
                for name, row in zip(self.names, self.classes, strict=True)
            ],
        )
        return Report(
            question="How good are the drawings?",
            verdict=CANNOT_TELL if self.judge_weakness else "",
            sentence=" ".join(f"{part}." for part in self._parts(training_s)),
            tables=[of_metrics, of_classes] if self.classes else [of_metrics],
            facts=asdict(self),
        )

    def _parts(self, training_s: float | None) -> Iterator[str]:
        """Parts of the sentence. In place of what is said of legibility and variety by a weak judge: what a
        classifier learns from the drawings, and what would make the judge tell."""
        accuracy, gan_train = map(self._beside_real, ("conditional_accuracy", "gan_train_accuracy"))
        recall, copies = map(self._beside_real, ("recall", "copies"))
        if self.judge_weakness:
            if gan_train:
                yield (
                    f"A classifier trained on drawings alone is right on {percent(gan_train[0])} of real "
                    f"images, one trained as long on real images on {percent(gan_train[1])}"
                )
            yield f"The judge cannot tell how good the drawings are: {self.judge_weakness}"
            if accuracy and accuracy[0] > accuracy[1]:
                yield f"It is right on more of the drawings than of real images, of which {ABOVE_REAL}"
            yield "More or larger images would make it tell"
        else:
            if accuracy:
                yield f"Legible: {self._legible(*accuracy)}"
            if recall:
                yield f"Varied: recall {percent(recall[0], 0)} (real images {percent(recall[1], 0)})"
            for label, words in self.weakest_classes()[:1]:
                yield f"Weakest class: {self.names[label]} ({words})"
        if copies:
            near = f"Near copies: {percent(copies[0])} (real images {percent(copies[1])})"
            yield near if copies[0] else "No near copies"
        if training_s:
            yield f"Trained in {training_s:,.0f} s"

    def _legible(self, value: float, real: float) -> str:
        low, high = self.score("conditional_accuracy").real_interval or (0, 0)
        between = harder = ""
        if high - low > WIDE_INTERVAL:  # few held-out images say little of what real ones get
            between = f", between {100 * low:.0f} and {percent(high, 0)}"
        if value > real:
            harder = f"; {ABOVE_REAL}"
        return f"{percent(value)} (real images {percent(real)}{between}{harder})"

    def _beside_real(self, key: str) -> tuple[float, float] | None:
        """The value of a metric, and that of real images; None where one of them is not known."""
        score = self.score(key)
        return None if score.value is None or score.real is None else (score.value, score.real)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, self.report().as_json())

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """The evaluation in this file. Raises CganError: absent, damaged, or of another version."""
        facts = read_json(path)
        try:
            return cls.from_json(facts)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise CganError(
                f"{path}: this version cannot read the evaluation in it. Write it again: `dvc repro --force "
                "evaluate`."
            ) from None

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Evaluation:
        """The evaluation whose report has these facts."""
        own = {part.name: facts[part.name] for part in fields(cls) if part.name in facts}
        own["metrics"] = {key: Score(**_known(Score, row)) for key, row in facts["metrics"].items()}
        rows = facts.get("classes", ())
        own["classes"] = [ClassScores(**_known(ClassScores, row)) for row in rows]
        if on_test_set := facts.get("judge_on_test_set"):
            own["judge_on_test_set"] = Number(**_known(Number, on_test_set))
        return cls(**own)


def _known(record: type[Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a dataclass's fields, as they were before JSON made lists of tuples."""
    values = {part.name: facts[part.name] for part in fields(record) if part.name in facts}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
