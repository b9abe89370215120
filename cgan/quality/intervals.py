"""How sure a metric is: 95 % intervals of an evaluation's numbers, and of differences between two.

A share of N drawings or images that are right, or copies, has Wilson's interval. Distance, recall and
coverage have that of replicates: it covers which latents were drawn and which real images were held out
(`estimates`).
No interval covers what another seed of the training would give, nor the judge's errors.
"""

import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from cgan.evaluation import Evaluation
from cgan.proportions import joint_z, wilson_interval
from cgan.quality.estimates import Estimate
from cgan.report import Interval


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
    from scipy.special import stdtrit  # scipy takes its time to import, so functions do that

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
    """The classes that clearly do not reach the share `limit`, whatever chance explains: bool [classes], of
    counts int64 [classes]. Even the upper ends of their Wilson intervals, which are at 95 % for all classes
    together (Bonferroni), lie below. Of classes that reach it, one is called short in at most one evaluation
    of twenty."""
    drawn = total > 0
    z = joint_z(max(1, int(drawn.sum())))
    pairs = zip(right.tolist(), total.tolist(), strict=True)
    ends = [wilson_interval(part, count, z)[1] if count else 1.0 for part, count in pairs]
    return torch.tensor(ends) < limit
