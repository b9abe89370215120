"""May this generator be served? Numbers in, a decision with reasons and a report out; no store, no files.

Bars are checked at the pessimistic end of the number's 95 % interval, so that none passes by luck:
shares by Wilson's interval (the bootstrap gives "all right" no width), distances and coverage by the
bootstrap of `quality.comparison`. Against the champion, a difference counts when its interval is
clear of 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cgan.markdown import in_markdown, spaced, table
from cgan.params.sections import GateParams
from cgan.quality.comparison import COMPARED, Judged
from cgan.quality.metrics import wilson_interval
from cgan.quality.table import METRICS
from cgan.store.pages import STRIP, artifact

COPIES_FLOOR = 0.01  # by its definition: nearer than 99 % of the held-out reals
MAIN = "fid_judge"
AT_MOST = ("fid_over_floor", "copies")
MARKS = {True: "better", False: "worse", None: "no clear difference"}

Report = dict[str, Any]  # reports/gate.json
Numbers = tuple[float | None, float | None]


@dataclass(frozen=True)
class Check:
    """One bar: `value` with its 95 % interval against `limit`, `what` in plain words."""

    name: str
    what: str
    value: float
    limit: float
    interval: tuple[float, float] | None
    passed: bool


@dataclass(frozen=True)
class Compared:
    """One metric of both generators; `better` is None where noise could make the difference."""

    metric: str
    challenger: float
    champion: float
    difference: float
    interval: tuple[float, float]
    better: bool | None


@dataclass(frozen=True)
class Share:
    """So many of so many."""

    count: int
    total: int

    @property
    def value(self) -> float:
        return self.count / self.total


@dataclass(frozen=True)
class Loaded:
    """The model of the registry in a process of its own: what is wrong with it, or how well it drew."""

    problem: str = ""
    right: Share = field(default_factory=lambda: Share(0, 1))


@dataclass(frozen=True)
class Decision:
    """`reasons`: why not, when it doesn't pass; else what speaks for it."""

    passed: bool
    reasons: list[str]
    checks: list[Check]
    comparison: list[Compared]

    def to_json(self) -> dict[str, Any]:
        return {
            "checks": [asdict(check) for check in self.checks],
            "comparison": [asdict(row) for row in self.comparison],
        }


def decide(
    limits: GateParams,
    challenger: Judged,
    copies: Share,
    judge: Share,
    loaded: Loaded,
    champion: Judged | None,
    objections: Sequence[str] = (),
    different: Sequence[Numbers] = (),
) -> Decision:
    """All bars, and the champion when there is one to compare with.

    `copies`: the drawings close to a training image; `judge`: the held-out labels that the judge agrees
    with; `objections`: what else speaks against it; `different`: how many different drawings each class
    has, and how many its real images get.
    """
    checks = [
        *bars(limits, challenger, copies, judge, different),
        _load_check(limits, loaded),
    ]
    comparison = compare(challenger, champion) if champion else []
    against = [_sentence(row) for row in comparison if row.better is False]
    main = next((row for row in comparison if row.metric == MAIN), None)
    if main and limits.against_champion == "better" and main.better is None:
        against.append(f"{_sentence(main)}; asked for is a better one, by more than noise explains")
    failed = [_refusal(check, loaded) for check in checks if not check.passed]
    failed = [*objections, *failed, *against]
    praise = [_sentence(row) for row in comparison if row.better]
    praise += ["every bar is reached, also at the pessimistic end of its interval"]
    return Decision(not failed, failed or praise, checks, comparison)


def compare(challenger: Judged, champion: Judged) -> list[Compared]:
    """Every metric, judged with the same replicates."""
    rows = []
    for name in COMPARED:
        ours, theirs = challenger.metrics[name], champion.metrics[name]
        difference = ours - theirs
        low, high = difference.interval
        clear = (high < 0) or (low > 0)
        better = (high < 0) == (METRICS[name].better == "lower") if clear else None
        rows.append(Compared(name, ours.value, theirs.value, difference.value, (low, high), better))
    return rows


def bars(
    limits: GateParams,
    judged: Judged,
    copies: Share | None = None,
    judge: Share | None = None,
    different: Sequence[Numbers] = (),
    *,
    benefit_of_doubt: bool = False,
) -> list[Check]:
    """The absolute bars. Checked at the pessimistic end of the interval, or at the optimistic one."""

    def check(name: str, what: str, value: float, interval: tuple[float, float]) -> Check:
        if name == "coverage_of_floor":  # the bootstrap can go below what a share can be
            interval = max(0.0, interval[0]), interval[1]
        low, high = interval[::-1] if benefit_of_doubt else interval
        limit = limits_of[name]
        passed = high <= limit if name in AT_MOST else low >= limit
        return Check(name, what, value, limit, interval, passed)

    limits_of = {
        "conditional_accuracy": limits.min_conditional_accuracy,
        "worst_class_accuracy": limits.min_worst_class_accuracy,
        "fid_over_floor": limits.max_fid_over_floor,
        "coverage_of_floor": limits.min_coverage_of_floor,
        "judge_accuracy": limits.min_judge_accuracy,
        "copies": COPIES_FLOOR + limits.max_copies_over_floor,
    }
    right, asked = judged.right_by_class, judged.asked_by_class
    # There may be more classes than drawings.
    seen = [label for label, count in enumerate(asked) if count]
    worst = min(seen, key=lambda label: right[label] / asked[label])
    shares = {
        "conditional_accuracy": (
            "drawings that show the class asked for",
            Share(sum(right), sum(asked)),
        ),
        "worst_class_accuracy": (
            f"drawings of {worst}, the worst class, that show it",
            Share(right[worst], asked[worst]),
        ),
    }
    if copies:
        shares["copies"] = ("drawings closer to a training image than 99 % of reals", copies)
    if judge:
        shares["judge_accuracy"] = ("held-out images whose label the judge names", judge)
    distances = {
        "fid_over_floor": ("Fréchet distance, less that of real images", judged.fid_over_floor),
        "coverage_of_floor": (
            "coverage, as a part of what real images get",
            judged.coverage_of_floor,
        ),
    }
    return [
        *(
            check(name, what, share.value, wilson_interval(share.count, share.total))
            for name, (what, share) in shares.items()
        ),
        *(check(name, what, e.value, e.interval) for name, (what, e) in distances.items()),
        *_variety(limits, different),
    ]


def _variety(limits: GateParams, different: Sequence[Numbers]) -> list[Check]:
    """Of the class nearest to its limit. A class of ten images has few pairs, so half of what its real images
    get is enough."""
    rows = [
        (min(limits.min_different_drawings, real / 2), drawn, label)
        for label, (drawn, real) in enumerate(different)
        if drawn is not None and real is not None
    ]
    if not rows:
        return []
    limit, drawn, label = min(rows, key=lambda row: row[1] - row[0])
    what = f"different drawings of {label}, the least varied class"
    return [Check("different_drawings", what, drawn, limit, None, drawn >= limit)]


def _load_check(limits: GateParams, loaded: Loaded) -> Check:
    share = loaded.right.value
    return Check(
        "load_check",
        "the registered model draws every class in a process of its own",
        0.0 if loaded.problem else share,
        limits.min_worst_class_accuracy,
        None,
        not loaded.problem and share >= limits.min_worst_class_accuracy,
    )


def _refusal(check: Check, loaded: Loaded) -> str:
    if check.name == "load_check" and loaded.problem:
        return f"{check.what}: {loaded.problem}"
    low, high = check.interval or (check.value, check.value)
    most = check.name in AT_MOST
    end = f" (95 %: {low:.4f} to {high:.4f})" if check.interval else ""
    return (
        f"{check.what}: {check.value:.4f}{end}, {'at most' if most else 'at least'} "
        f"{check.limit:.4g} is asked{(' at the upper end' if most else ' at the lower end') * bool(end)}"
    )


def _sentence(row: Compared) -> str:
    words = {True: "better than", False: "worse than", None: "not clearly different from"}
    low, high = row.interval
    return (
        f"{METRICS[row.metric].name} {row.challenger:.4f}, {words[row.better]} the champion's "
        f"{row.champion:.4f} (difference {row.difference:+.4f}, 95 %: {low:+.4f} to {high:+.4f})"
    )


# --- the report for people ----------------------------------------------------------------------


def headline(report: Report) -> str:
    """The verdict in one sentence."""
    version = report["challenger"]["version"]
    if report["verdict"] == "unchanged":
        return f"Version {version} needs no new verdict: {report['reasons'][0]}."
    if report["verdict"] == "blocked":
        return f"Version {version} is blocked: {report['reasons'][0].rstrip('.')}."
    if report["verdict"] == "promoted":
        which = "new" if report["champion"] else "first"
        return f"Version {version} is the {which} champion{_beside_champion(report)}."
    return f"Version {version} is good enough to be champion{_beside_champion(report)}."


def history_reason(report: Report) -> str:
    """Why it was promoted, for the registry's history."""
    return f"passed the gate{_beside_champion(report)}"


def _beside_champion(report: Report) -> str:
    """The main metric beside the champion's, or why it is not there; empty where there is no champion."""
    champion = report["champion"]
    if champion and champion.get("lost"):
        return f"; its predecessor, version {champion['version']}, could not be compared: {champion['lost']}"
    main = next((row for row in report["comparison"] if row["metric"] == MAIN), None)
    if main is None:
        return ""
    low, high = main["interval"]
    return (
        f": Fréchet distance {main['challenger']:.3f} against {main['champion']:.3f} of version "
        f"{report['champion']['version']} (difference {main['difference']:+.3f}, 95 %: {low:+.3f} to "
        f"{high:+.3f})"
    )


def to_markdown(report: Report) -> str:
    """reports/gate.md."""
    return "\n\n".join([f"# Gate: {report['verdict']}", *_parts(report)])


def version_note(report: Report) -> str:
    """The version's page in MLflow: the verdict, a drawing of each class, what was measured."""
    said, *rest = _parts(report)
    drawings = f"![A drawing of each class]({artifact(report['challenger']['run_id'], STRIP)})"
    return spaced("\n\n".join([said, drawings, *rest]))


def _parts(report: Report) -> list[str]:
    challenger, champion = report["challenger"], report["champion"]
    parts = [in_markdown(report["summary"])]
    if len(report["reasons"]) > 1 or report["verdict"] in (
        "passed",
        "promoted",
    ):  # else it was said
        parts.append("\n".join(f"- {in_markdown(reason)}" for reason in report["reasons"]))
    if report["comparison"] and champion:
        head = (
            "",
            f"version {challenger['version']}",
            "champion",
            "difference",
            "95 % interval",
            "",
        )
        rows = [
            (
                f"{METRICS[row['metric']].name} ({METRICS[row['metric']].better} is better)",
                f"{row['challenger']:.4f}",
                f"{row['champion']:.4f}",
                f"{row['difference']:+.4f}",
                "{:+.4f} to {:+.4f}".format(*row["interval"]),
                MARKS[row["better"]],
            )
            for row in report["comparison"]
        ]
        parts += [f"## Beside the champion, version {champion['version']}", table(head, rows, 4)]
    if report["checks"]:
        parts += ["## Bars", bars_table(report["checks"])]
    if passport := report["passport"]:
        parts.append(
            f"{passport['drawn_images']:,} drawings (seed {passport['seed']}) against "
            f"{passport['reference_images']:,} held-out images, distances with "
            f"{passport['distance_images']:,} on the other side; real training images in place of the "
            f"drawings get a Fréchet distance of {passport['fid_judge_floor']:.4f} and a coverage of "
            f"{passport['coverage_floor']:.4f}. Judge `{passport['extractor_digest'][:12]}`, hold-out "
            f"`{passport['reference_digest'][:12]}`, {passport['replicates']} bootstrap replicates: the "
            "intervals cover the choice of latents and of real images, not another training seed."
        )
    parts.append(
        f"Run `{challenger['run_id']}` ({in_markdown(challenger['run_name'])}), commit "
        f"`{in_markdown(challenger['commit'][:10])}`, data `{in_markdown(challenger['data_sha256'][:12])}`, "
        f"{report['time']}.\n"
    )
    return parts


def bars_table(checks: Iterable[dict[str, Any]]) -> str:
    """Checks as reports hold them, in Markdown."""
    rows = [
        (
            check["what"],
            f"{check['value']:.4f}",
            "{:.4f} to {:.4f}".format(*check["interval"]) if check["interval"] else "",
            f"{'≤' if check['name'] in AT_MOST else '≥'} {check['limit']:.4g}",
            "passed" if check["passed"] else "failed",
        )
        for check in checks
    ]
    return table(("", "value", "95 % interval", "asked for", ""), rows, 3)
