"""The metrics: a row each, from which pages, tables, the gate and sweeps have names and directions.

To add a metric, write a row here and an entry of its key in `cgan.quality.evaluation.Conditions.measure`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cgan.text import percent


@dataclass(frozen=True)
class Metric:
    """`key`: of metrics.json, and of MLflow after `quality/`. `on_screen`: shown where there is room for a
    few only. `in_tables`: shown in tables. `headline`: its name in the first line of a run's page, for those
    that lead it. `is_share`: of all drawings or images, between 0 and 1."""

    key: str
    name: str
    meaning: str
    better: str = "higher"  # or "lower"
    on_screen: bool = True
    in_tables: bool = True
    headline: str = ""
    is_share: bool = True

    def shown(self, value: float) -> str:
        """A value for readers: `98.6 %`, `0.3354`."""
        return percent(value) if self.is_share else f"{value:,.4g}"

    def bounded(self, interval: Sequence[float] | None) -> tuple[float, float] | None:
        """An interval within what the metric can be: of all metrics only the kernel distance can be below 0;
        a share is at most 1."""
        if interval is None:
            return None
        low, high = interval
        most = 1.0 if self.is_share else high
        return (low if self.key == "kid_judge" else max(0.0, low), min(most, high))


METRICS = {
    metric.key: metric
    for metric in (
        Metric(
            "conditional_accuracy",
            "conditional accuracy",
            "share of drawings that show the class asked for, mean over classes",
            headline="accuracy",
        ),
        Metric(
            "fid_judge",
            "Fréchet distance",
            "how far the drawings are from held-out real images, in the judge's features",
            "lower",
            headline="distance",
            is_share=False,
        ),
        Metric("coverage", "coverage", "share of real images with a drawing near them"),
        Metric(
            "recall",
            "recall",
            "share of real images that look like some drawing",
            headline="recall",
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
            headline="GAN-train",
        ),
        Metric(
            "copies",
            "copies",
            "drawings nearer to a training image than unseen real images are, even if moved, turned or noisy",
            "lower",
        ),
        Metric(
            "kid_judge",
            "kernel distance",
            "unbiased MMD²: about 0 between real images, slightly less where their class mixes are equal",
            "lower",
            on_screen=False,
            in_tables=False,
            is_share=False,
        ),
        Metric(
            "precision",
            "precision",
            "share of drawings that look like some real image",
            on_screen=False,
        ),
        Metric(
            "density",
            "density",
            "how densely real images surround the drawings; 1 is like real",
            on_screen=False,
            in_tables=False,
            is_share=False,
        ),
    )
}

RANKED_BY = "fid_judge"  # what says which of several runs is the best
