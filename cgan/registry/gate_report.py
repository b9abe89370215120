"""The gate's report for people: reports/gate.md, and the page of the model version in MLflow."""

from __future__ import annotations

from typing import Any

from cgan.markdown import in_markdown, spaced
from cgan.quality.table import METRICS
from cgan.registry.decision import AT_MOST, MAIN

Report = dict[str, Any]
MARKS = {True: "better", False: "**worse**", None: "no clear difference"}


def headline(report: Report) -> str:
    """The verdict in one sentence."""
    version = report["challenger"]["version"]
    if report["verdict"] == "blocked":
        return f"Version {version} is blocked: {report['reasons'][0].rstrip('.')}."
    if report["verdict"] == "promoted":
        which = "new" if report["champion"] else "first"
        return f"Version {version} is the {which} champion{_beside(report)}."
    return f"Version {version} is good enough to be champion{_beside(report)}."


def history_reason(report: Report) -> str:
    """Why it was promoted, for the registry's history."""
    return f"passed the gate{_beside(report)}"


def _beside(report: Report) -> str:
    """The main metric beside the champion's; empty where there is none to compare with."""
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
    return f"# Gate: {report['verdict']}\n\n{_body(report)}"


def version_note(report: Report) -> str:
    """The version's page in MLflow, which has a title already."""
    return spaced(_body(report))


def _body(report: Report) -> str:
    challenger, champion = report["challenger"], report["champion"]
    lines = [in_markdown(report["summary"]), ""]
    if len(report["reasons"]) > 1 or report["verdict"] != "blocked":  # else it has been said
        lines += [f"- {in_markdown(reason)}" for reason in report["reasons"]]
    if report["comparison"] and champion:
        lines += [
            "",
            f"## Beside the champion, version {champion['version']}",
            "",
            f"| | version {challenger['version']} | champion | difference | 95 % interval | |",
            "|---|---:|---:|---:|---:|---|",
            *[
                f"| {METRICS[row['metric']].name} ({METRICS[row['metric']].better} is better) | "
                f"{row['challenger']:.4f} | {row['champion']:.4f} | {row['difference']:+.4f} | "
                f"{row['interval'][0]:+.4f} to {row['interval'][1]:+.4f} | {MARKS[row['better']]} |"
                for row in report["comparison"]
            ],
        ]
    if report["checks"]:
        lines += [
            "",
            "## Bars",
            "",
            "| | value | 95 % interval | asked for | |",
            "|---|---:|---:|---:|---|",
            *[_bar(check) for check in report["checks"]],
        ]
    if passport := report["passport"]:
        lines += [
            "",
            f"{passport['drawn_images']:,} drawings (seed {passport['seed']}) against "
            f"{passport['reference_images']:,} held-out images, distances with "
            f"{passport['distance_images']:,} on the other side; real training images in place of the "
            f"drawings get a Fréchet distance of {passport['fid_judge_floor']:.4f} and a coverage of "
            f"{passport['coverage_floor']:.4f}. Judge `{passport['extractor_digest'][:12]}`, hold-out "
            f"`{passport['reference_digest'][:12]}`, {passport['replicates']} bootstrap replicates: the "
            "intervals cover the choice of latents and of real images, not another training seed.",
        ]
    lines += [
        "",
        f"Run `{challenger['run_id']}` ({in_markdown(challenger['run_name'])}), commit "
        f"`{in_markdown(challenger['commit'][:10])}`, data `{in_markdown(challenger['data_sha256'][:12])}`, "
        f"{report['time']}.",
        "",
    ]
    return "\n".join(lines)


def _bar(check: dict[str, Any]) -> str:
    interval = check["interval"]
    between = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""
    most = check["name"] in AT_MOST
    return (
        f"| {in_markdown(check['what'])} | {check['value']:.4f} | {between} | "
        f"{'≤' if most else '≥'} {check['limit']:.4g} | {'passed' if check['passed'] else '**failed**'} |"
    )
