"""`cgan reevaluate`: is the champion still good, and is new data still like the data it learnt from?

The champion's own judge and its own training data are the measure; both were kept when it was registered.
Noise raises no alarm: a bar is missed when the whole 95 % interval is beyond it (the gate asks the
reverse), and the limits of drift are far above what two halves of one data set differ by.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from cgan.data import csv_reader, csv_report
from cgan.errors import CganError, DataError, ModelError
from cgan.files import write_json, write_text
from cgan.markdown import in_markdown, table
from cgan.model.hardware import compute_deterministically
from cgan.model.model_file import load_generator
from cgan.model.sampling import draw
from cgan.params.sections import Params
from cgan.project import CSV, REEVALUATION_REPORT, REEVALUATION_TEXT
from cgan.quality.comparison import Ground
from cgan.quality.evaluation import classes_asked
from cgan.quality.judge import LOOK_AT, Progress, look, silent
from cgan.quality.metrics import frechet_distance
from cgan.registry.archive import fingerprints, generator_file, judge_of, kept_profile
from cgan.registry.champion import agreement_rows, limit_row
from cgan.registry.client import Registry, open_registry
from cgan.registry.decision import Check, bars, bars_table
from cgan.registry.history import REEVALUATION, Version, now

FOLDER = "reevaluation"  # of the run's artifacts
KIND = "shape_and_classes"
WORDS = {
    KIND: "kind of image and classes",
    "class_mix": "images that would need another class",
    "pixel_values": "change of brightness, as a part of 0–255",
    "position": "distance that the ink moved, as a part of the image's side",
    "judge_features": "Fréchet distance to the training data, over its floor",
    "label_agreement": "labels that the judge no longer agrees with",
    "class_agreement": "labels of one class that the judge no longer agrees with",
}
Report = dict[str, Any]


def reevaluate(params: Params, say: Callable[[str], None], progress: Progress = silent) -> Report:
    """Judge the champion on data/raw/train.csv; the report, also in reports/reevaluation.json and .md.

    Raises CganError with the summary, when all is written, unless the champion is healthy; and when
    nothing could be judged: no CSV, no champion, its files gone, the store away.
    """
    compute_deterministically()
    if not CSV.is_file():
        raise DataError(f"{CSV}: not found. Fetch the data first: `dvc repro validate`.")
    limit = params.data.max_megabytes * 1_000_000
    table = csv_reader.read_csv(CSV, params.validation, max_bytes=limit, name=str(CSV))
    found = csv_report.report_on(table, params.validation, str(CSV))
    with open_registry(params.gate.model) as registry:
        champion = registry.champion_version()
        if champion is None:
            raise ModelError(
                f"`{registry.model}` has no champion yet: `cgan gate` makes the first."
            )
        say(
            f"Judging version {champion.number} of `{registry.model}` on {found['rows']:,} images of {CSV}."
        )
        report = _report(registry, champion, table, found, params, progress)
        write_json(REEVALUATION_REPORT, report)
        write_text(REEVALUATION_TEXT, to_markdown(report))
        _record(registry, champion, report)
    say(f"{report['verdict'].upper()}: {report['summary']}")
    for reason in report["reasons"]:
        say(f"  - {reason}")
    if report["verdict"] != "healthy":
        raise CganError(f"{report['summary']} {REEVALUATION_TEXT} has every number.")
    return report


def _report(
    registry: Registry,
    champion: Version,
    table: csv_reader.Table,
    found: dict[str, Any],
    params: Params,
    progress: Progress,
) -> Report:
    rows = _profile_drift(found, kept_profile(champion))
    checks: list[Check] = []
    if rows[0]["name"] != KIND:
        more, checks = _through_the_judge(registry, champion, table, params, progress)
        rows += more
    moved = [row for row in rows if not row["passed"]]
    missed = [check for check in checks if not check.passed]
    verdict = "drifted" if moved else "degraded" if missed else "healthy"
    reasons = [
        f"{WORDS[row['name']]}: {row['value']:.3f}, at most {row['limit']:.3g} is usual"
        for row in moved
        if row["name"] != KIND
    ]
    reasons += [str(row["why"]) for row in moved if "why" in row]
    reasons += [
        f"{check.what}: {check.value:.4f}, the bar is {check.limit:.4g}" for check in missed
    ]
    summaries = {
        "drifted": f"The data is no longer like what version {champion.number} was trained on: ",
        "degraded": f"Version {champion.number}, the champion, misses a bar on new data: ",
        "healthy": f"Version {champion.number}, the champion, is as good as the gate asks, and the data "
        "is like its training data",
    }
    return {
        "verdict": verdict,
        "summary": f"{summaries[verdict]}{reasons[0] if reasons else ''}.",
        "reasons": reasons,
        "drift": rows,
        "quality": {check.name: asdict(check) for check in checks},
        "champion": champion.for_report(),
        "data": {"path": str(CSV), "sha256": table.sha256, "images": len(table.labels)},
        "time": now(),
    }


def _profile_drift(found: dict[str, Any], known: dict[str, Any]) -> list[dict[str, Any]]:
    """Pixel statistics and class mix, `cgan.data.csv_report`."""
    try:
        distances = csv_report.distances(found, known)
    except DataError as error:
        return [limit_row(KIND, 1.0, 0.0, str(error))]
    limits = csv_report.DRIFT_LIMITS
    return [limit_row(name, value, limits[name]) for name, value in distances.items()]


def _through_the_judge(
    registry: Registry,
    champion: Version,
    table: csv_reader.Table,
    params: Params,
    progress: Progress,
) -> tuple[list[dict[str, Any]], list[Check]]:
    """What the champion's judge sees in the data, and in what the champion draws."""
    judge, features, facts, seen_before = judge_of(champion)
    images, labels = torch.from_numpy(table.images), torch.from_numpy(table.labels)
    chosen = _chosen(images, seen_before, int(facts["heldout_images"]), params.evaluate.seed)
    bar = functools.partial(progress, "judging the data", images_a_step=LOOK_AT)
    real = look(judge, images[chosen], progress=bar)
    asked = classes_asked(len(real.logits[0]), params.evaluate)
    seed = params.evaluate.seed
    ground = Ground(judge, real, labels[chosen], features, asked, seed, progress)
    moved = frechet_distance(real.features, features) - float(facts["fid_floor"])
    rows = [
        limit_row("judge_features", moved, params.reevaluate.max_feature_distance),
        *agreement_rows(ground.confusion, facts, params.reevaluate.max_agreement_drop),
    ]
    with generator_file(f"models:/{registry.model}/{champion.number}") as path:
        network, _ = load_generator(path)
    judged = ground.judge_drawings(draw(network, asked, params.evaluate.seed))
    return rows, bars(params.gate, judged, benefit_of_doubt=True)


def _chosen(images: Tensor, seen_before: Tensor, count: int, seed: int) -> Tensor:
    """Indices of as many images as the floor was measured with: new to the champion where they suffice."""
    fresh = ~torch.isin(fingerprints(images), seen_before)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    if int(fresh.sum()) >= count:
        order = order[fresh[order]]
    return order[:count]


def _record(registry: Registry, champion: Version, report: Report) -> None:
    """On the champion's version and run, where MLflow shows it."""
    told = {REEVALUATION + key: report[key] for key in ("verdict", "summary", "time")}
    registry.tag(champion.number, told)
    for path in (REEVALUATION_REPORT, REEVALUATION_TEXT):
        registry.client.log_artifact(champion.run_id, str(path), FOLDER)
    values = {f"reevaluation/{row['name']}": float(row["value"]) for row in report["drift"]}
    values |= {f"reevaluation/{name}": row["value"] for name, row in report["quality"].items()}
    registry.log_once(champion.run_id, values, int(time.time() // 86_400))


def to_markdown(report: Report) -> str:
    """reports/reevaluation.md."""
    marks = {True: "passed", False: "failed"}
    drift = [
        (WORDS[row["name"]], f"{row['value']:.4f}", f"≤ {row['limit']:.4g}", marks[row["passed"]])
        for row in report["drift"]
    ]
    parts = [f"# Re-evaluation: {report['verdict']}", in_markdown(report["summary"])]
    parts += ["## The data", table(("", "value", "usual", ""), drift, 2)]
    if checks := report["quality"].values():
        parts += ["## The champion's drawings", bars_table(checks)]
    champion, data = report["champion"], report["data"]
    parts.append(
        f"Version {champion['version']}, run `{champion['run_id']}`, trained on data "
        f"`{in_markdown(champion['data_sha256'][:12])}`; judged by its own judge on "
        f"{data['images']:,} images, `{data['sha256'][:12]}`, {report['time']}.\n"
    )
    return "\n\n".join(parts)
