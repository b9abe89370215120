"""`cgan reevaluate`: is the champion still good, and is new data still like the data it learnt from?

The champion's own judge and its own training data are the measure; both were kept when it was registered.
Noise raises no alarm: a bar is missed when the whole 95 % interval is beyond it (the gate asks the
reverse), and the limits of drift are far above what two halves of one data set differ by.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
from torch import Tensor

from cgan.data import csv_reader, csv_report
from cgan.errors import CganError, DataError, ModelError
from cgan.markdown import table
from cgan.model.hardware import compute_deterministically
from cgan.model.model_file import load_generator
from cgan.model.networks import Generator
from cgan.model.sampling import draw
from cgan.params.sections import Params
from cgan.project import CSV, REEVALUATION_REPORT, REEVALUATION_TEXT
from cgan.quality.comparison import Ground
from cgan.quality.evaluation import classes_asked
from cgan.quality.judge import LOOK_AT, Progress, look, silent
from cgan.quality.metrics import frechet_distance
from cgan.registry.archive import Kept, fingerprints, generator_file, kept_of
from cgan.registry.client import Registry, open_registry
from cgan.registry.decision import bars
from cgan.registry.drift import KIND, agreement, drift_of_profile, limit
from cgan.registry.history import REEVALUATION, Version, now
from cgan.verdict import Check, Report, as_dicts, table_of

FOLDER = "reevaluation"  # of the run's artifacts
SUMMARIES = {
    "drifted": "The data is no longer like what version {} was trained on: ",
    "degraded": "Version {}, the champion, misses a bar on new data: ",
    "healthy": "Version {}, the champion, is as good as the gate asks, and the data is like its training "
    "data",
}


def reevaluate(params: Params, say: Callable[[str], None], progress: Progress = silent) -> Report:
    """Judge the champion on data/raw/train.csv; the report, also in reports/reevaluation.json and .md.

    Raises CganError with the summary, when all is written, unless the champion is healthy; and when
    nothing could be judged: no CSV, no champion, its files gone, the store away.
    """
    compute_deterministically()
    if not CSV.is_file():
        raise DataError(f"{CSV}: not found. Fetch the data first: `dvc repro validate`.")
    most = params.data.max_megabytes * 1_000_000
    csv = csv_reader.read_csv(CSV, params.validation, max_bytes=most, name=str(CSV))
    found = csv_report.report_on(csv, params.validation, str(CSV))
    with open_registry(params.gate.model) as registry:
        champion = registry.champion_version()
        if champion is None:
            raise ModelError(
                f"`{registry.model}` has no champion yet: `cgan gate` makes the first."
            )
        say(
            f"Judging version {champion.number} of `{registry.model}` on {found['rows']:,} images of {CSV}."
        )
        kept = kept_of(registry, champion)
        drift = drift_of_profile(found, kept.profile)
        checks: list[Check] = []
        if drift[0].name != KIND:
            with generator_file(f"models:/{registry.model}/{champion.number}") as path:
                network, _ = load_generator(path)
            more, checks = _through_the_judge(kept, network, csv, params, progress)
            drift += more
        report = _report(champion, csv, drift, checks)
        report.write(REEVALUATION_REPORT, REEVALUATION_TEXT)
        _record(registry, champion, report, [*drift, *checks])
    report.say(say, REEVALUATION_TEXT)
    if report.verdict != "healthy":
        raise CganError(f"{report.summary} {REEVALUATION_TEXT} has every number.")
    return report


def _report(
    champion: Version, csv: csv_reader.Table, drift: list[Check], checks: list[Check]
) -> Report:
    moved = [check.in_words() for check in drift if not check.passed]
    missed = [check.in_words() for check in checks if not check.passed]
    verdict = "drifted" if moved else "degraded" if missed else "healthy"
    reasons = [*moved, *missed]
    summary = f"{SUMMARIES[verdict].format(champion.number)}{reasons[0] if reasons else ''}."
    report = Report("Re-evaluation", verdict, summary, reasons, now())
    report.facts = {
        "drift": as_dicts(drift),
        "quality": as_dicts(checks),
        "champion": champion.for_report(),
        "data": {"path": str(CSV), "sha256": csv.sha256, "images": len(csv.labels)},
    }
    report.sections["The data"] = table_of(drift)
    if checks:
        report.sections["The champion's drawings"] = table_of(checks)
    for heading, of in {"The champion": "champion", "Judged on": "data"}.items():
        report.sections[heading] = table(("", ""), report.facts[of].items())
    return report


def _through_the_judge(
    kept: Kept, network: Generator, csv: csv_reader.Table, params: Params, progress: Progress
) -> tuple[list[Check], list[Check]]:
    """What the champion's judge sees in the data, and in what the champion draws."""
    images, labels = torch.from_numpy(csv.images), torch.from_numpy(csv.labels)
    seed, count = params.evaluate.seed, int(kept.facts["heldout_images"])
    chosen = _chosen(images, kept.fingerprints, count, seed)
    bar = functools.partial(progress, "judging the data", images_a_step=LOOK_AT)
    real = look(kept.judge, images[chosen], progress=bar)
    asked = classes_asked(len(real.logits[0]), params.evaluate)
    ground = Ground(kept.judge, real, labels[chosen], kept.features, asked, seed, progress)
    moved = frechet_distance(real.features, kept.features) - float(kept.facts["fid_floor"])
    rows = [
        limit("judge_features", moved, params.reevaluate.max_feature_distance),
        *agreement(ground.confusion, kept.facts, params.reevaluate.max_agreement_drop),
    ]
    judged = ground.judge_drawings(draw(network, asked, seed))
    return rows, bars(params.gate, judged, benefit_of_doubt=True)


def _chosen(images: Tensor, seen_before: Tensor, count: int, seed: int) -> Tensor:
    """Indices of as many images as the floor was measured with: new to the champion where they suffice."""
    fresh = ~torch.isin(fingerprints(images), seen_before)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    if int(fresh.sum()) >= count:
        order = order[fresh[order]]
    return order[:count]


def _record(registry: Registry, champion: Version, report: Report, checks: list[Check]) -> None:
    """On the champion's version and run, where MLflow shows it."""
    tags = {"verdict": report.verdict, "summary": report.summary, "time": report.time}
    registry.tag(champion.number, {REEVALUATION + key: value for key, value in tags.items()})
    for path in (REEVALUATION_REPORT, REEVALUATION_TEXT):
        registry.client.log_artifact(champion.run_id, str(path), FOLDER)
    values = {f"reevaluation/{check.name}": float(check.value) for check in checks}
    registry.log_once(champion.run_id, values, int(time.time() // 86_400))
