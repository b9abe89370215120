"""The challenger beside the champion: in which metrics it is better or worse by more than noise explains."""

from __future__ import annotations

from dataclasses import dataclass

from cgan.evaluation import METRICS, ClassScores, Evaluation, Interval, Metric
from cgan.quality.estimates import Estimate
from cgan.quality.intervals import critical_t
from cgan.verdict import Check, in_digits

# In one of these a challenger has to be clearly better: how near drawings come to real images, and how many
# of the real images they come near. Spoilt drawings improve neither.
IMPROVEMENT_METRICS = ("fid_judge", "coverage")
# The metrics in which a challenger is compared with the champion, and the loss in each that nobody would
# notice: half a drawing of a hundred, two of a hundred of a class, two of a hundred real images without a
# drawing near them. Two seeds differ by as much.
TOLERATED_LOSSES = {
    "fid_judge": 0.0,
    "conditional_accuracy": 0.005,
    "worst_class_accuracy": 0.02,
    "coverage": 0.02,
}


def compare(
    challenger: Evaluation, champion: Evaluation, against_champion: str
) -> tuple[list[Check], list[str]]:
    """The check of each metric's difference; and in words what is clearly better.

    Nothing may be clearly worse, by more than TOLERATED_LOSSES allows; `against_champion` "better" asks for
    one of IMPROVEMENT_METRICS.
    """
    if challenger.not_measurable:
        return [], []
    differences = [ChampionDifference.of(key, challenger, champion) for key in TOLERATED_LOSSES]
    better = [each for each in differences if each.is_better]
    has_improved = any(each.metric.key in IMPROVEMENT_METRICS for each in better)
    must_improve = against_champion == "better" and not has_improved
    checks = [each.check(must_improve) for each in differences]
    return checks, [each.check().in_words() for each in better]


@dataclass(frozen=True)
class ChampionDifference:
    """A metric of the challenger and of the champion. `change`: the former less the latter; `interval`: of
    that, by the same replicates, at 95 % for all TOLERATED_LOSSES together."""

    metric: Metric
    challenger: float
    champion: float
    change: float
    interval: Interval

    @classmethod
    def of(cls, key: str, challenger: Evaluation, champion: Evaluation) -> ChampionDifference:
        new, old = (Estimate.of_score(each.score(key)) for each in (challenger, champion))
        interval = _joint_interval(new - old, len(TOLERATED_LOSSES))
        return cls(METRICS[key], new.value, old.value, (new - old).value, interval)

    @property
    def is_better(self) -> bool:
        low, high = self.interval
        return high < 0 if self.metric.better == "lower" else low > 0

    @property
    def is_worse(self) -> bool:
        (low, high), tolerated = self.interval, TOLERATED_LOSSES[self.metric.key]
        return low > tolerated if self.metric.better == "lower" else high < -tolerated

    def check(self, must_improve: bool = False) -> Check:
        """`must_improve`: no metric has, so this fails if it is one of those that may."""
        passed = not self.is_worse
        low, high = map(self._in_digits, self.interval)
        why = f"difference {self._in_digits(self.change)}; between {low} and {high} (95 % for all metrics)"
        if must_improve and passed and self.metric.key in IMPROVEMENT_METRICS:
            either = " or ".join(METRICS[key].name for key in IMPROVEMENT_METRICS)
            passed, why = False, f"{why}; {either} has to be better by more than noise explains"
        verdict = "not clearly different from"
        if self.is_better or self.is_worse:
            verdict = "better than" if self.is_better else "worse than"
        return Check(
            name=self.metric.key,
            what=f"{self.metric.name} {self._in_digits(self.challenger)}, {verdict} the champion's "
            f"{self._in_digits(self.champion)}",
            value=self.change,
            limit=None,
            passed=passed,
            at_most=self.metric.better == "lower",
            interval=self.interval,
            why=why,
            is_share=self.metric.is_share,
        )

    def _in_digits(self, value: float) -> str:
        return in_digits(value, self.metric.is_share)


def _joint_interval(estimate: Estimate, count: int) -> Interval:
    """The estimate's interval, at 95 % for `count` of them together (Bonferroni)."""
    replicates = estimate.replicates
    reach = critical_t(len(replicates) - 1, comparisons=count) * float(replicates.std())
    return estimate.value - reach, estimate.value + reach


def diversity_checks(challenger: Evaluation, champion: Evaluation, least: float) -> list[Check]:
    """No class may clearly have less than the fraction `least` of the champion's diversity: the check of the
    class that has least of it; none where no class has a diversity."""
    ratios = dict[str, Estimate]()
    rows = zip(challenger.names, challenger.classes, champion.classes, strict=True)
    for name, of_challenger, of_champion in rows:
        new, old = _diversity(of_challenger), _diversity(of_champion)
        if new and old:
            ratios[name] = new / old
    checks = []
    for name, ratio in ratios.items():
        low, high = _joint_interval(ratio, len(ratios))
        check = Check(
            name="diversity_of_champion",
            what=f"diversity of class {name}, as a fraction of the champion's",
            value=ratio.value,
            limit=least,
            passed=high >= least,
            interval=(low, high),
        )
        checks.append(check)
    return sorted(checks, key=lambda check: (check.passed, check.value))[:1]


def _diversity(row: ClassScores) -> Estimate | None:
    if row.diversity is None:
        return None
    return Estimate.from_deviations(row.diversity, row.diversity_replicates)
