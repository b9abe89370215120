"""How sure a metric is: 95 % intervals of an evaluation's numbers, and of differences between two.

A share of N drawings or images that are right, or copies, has Wilson's interval. Distances, precision,
recall, density and coverage have that of replicates, by which the gate decides too: it covers which latents
were drawn and which real images were held out (`estimates`).
No interval covers what another seed of the training would give, nor the judge's errors.
"""

import math
import statistics
from collections.abc import Sequence

import torch
from scipy.special import bdtr, stdtrit  # scipy.stats takes seconds to import, so functions do that
from torch import Tensor

from cgan.evaluation import Evaluation, Interval
from cgan.quality.estimates import Estimate
from cgan.quality.metrics import wilson_interval


def change_interval(key: str, a: Evaluation, b: Evaluation) -> Interval | None:
    """The interval of a metric's change from a to b, which both have and measured alike; None where it is
    not known.

    Where both have replicates, it is the gate's interval: both had the same latents and real images, which
    were resampled alike. Elsewhere it is put together.
    """
    first, second = a.metrics[key], b.metrics[key]
    assert first.value is not None and second.value is not None
    if first.replicates and second.replicates:
        return (Estimate.of_score(second) - Estimate.of_score(first)).interval
    if first.interval and second.interval:
        return difference_interval(first.value, first.interval, second.value, second.interval)
    return None


def proportion_interval(value: float, count: int) -> Interval:
    """Wilson's interval of a share of `count` images."""
    return wilson_interval(round(value * count), count)


def difference_interval(a: float, of_a: Interval, b: float, of_b: Interval) -> Interval:
    """The interval of b - a, from those of both (Newcombe, Statistics in Medicine 17, 1998, method 10).

    It takes them for independent. Here both were measured with the same latents and the same real images,
    so that this is rather too wide than too narrow.
    """
    change = b - a
    low = change - math.hypot(b - of_b[0], of_a[1] - a)
    high = change + math.hypot(of_b[1] - b, a - of_a[0])
    return low, high


def critical_t(freedom: float, level: float = 0.95, comparisons: int = 1) -> float:
    """Half the width of an interval, in standard errors, that is at `level` for so many `comparisons`
    together (Bonferroni): Student's t with so many degrees of freedom."""
    return float(stdtrit(freedom, 1 - (1 - level) / (2 * comparisons)))


def difference_of_means(a: Sequence[float], b: Sequence[float]) -> tuple[float, Interval]:
    """mean(b) - mean(a) with Welch's interval, for trainings with several seeds: it covers the luck of a
    seed, too. Each needs two values at least."""
    from scipy.stats import ttest_ind

    change = statistics.fmean(b) - statistics.fmean(a)
    if not statistics.variance(a) and not statistics.variance(b):
        return change, (change, change)
    low, high = ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    return change, (float(low), float(high))


def falls_short(right: Tensor, total: Tensor, limit: float) -> Tensor:
    """The classes that do not reach the share `limit`: bool [classes], of counts int64 [classes].

    A class does not where the pessimistic end of its own 95 % interval is below, unless chance explains it:
    were all classes as good as their mean, the worst of so many would have so few right (Fisher's exact test
    of the class beside the others, Bonferroni). Nor does one that is `clearly_short`. So of equally good
    classes, two or more, at most 5 % of generators are stopped; a class that is worse than the others, or
    has no others, has to reach the limit itself, which a single good class of few drawings may miss by chance
    (docs/log.md, 2026-11-30, "1 to 1,000 classes, and groups").
    """
    from scipy.stats import hypergeom

    short = clearly_short(right, total, limit)
    has_drawings = total > 0
    classes = int(has_drawings.sum())
    all_drawings, all_right = int(total[has_drawings].sum()), int(right[has_drawings].sum())
    for label in (has_drawings & ~short).nonzero()[:, 0].tolist():
        class_right, class_drawings = int(right[label]), int(total[label])
        if wilson_interval(class_right, class_drawings)[0] < limit:
            chance = hypergeom.cdf(class_right, all_drawings, all_right, class_drawings)
            short[label] = classes == 1 or bool(chance < 0.05 / classes)
    return short


def clearly_short(right: Tensor, total: Tensor, limit: float) -> Tensor:
    """The classes that are below the share `limit` even at the optimistic ends of intervals that are at 95 %
    for all together (binomial, exact; Bonferroni): bool [classes], of counts int64 [classes]."""
    chance = torch.from_numpy(bdtr(right.numpy(), total.numpy(), limit))
    return (total > 0) & (chance < 0.025 / max(1, int((total > 0).sum())))
