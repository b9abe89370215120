"""`cgan compare`: how two runs differ, and in which params."""

from dataclasses import replace

from cgan.pipeline.runs.recorded_run import read_run
from cgan.quality.comparison import compare
from cgan.report import Report, Table


def compare_runs(a: str, b: str) -> Report:
    """What `cgan.compare` says of two runs, each of which is what `read_run` takes; with their names and the
    params that differ."""
    (evaluation_a, run_a), (evaluation_b, run_b) = read_run(a), read_run(b)
    report = compare(evaluation_a, evaluation_b).report()
    params_a, params_b = run_a["params"], run_b["params"]
    rows = [(key, params_a.get(key, "–"), params_b.get(key, "–")) for key in params_a | params_b]
    names = "run", run_a.get("run_name", ""), run_b.get("run_name", "")
    differing = [row for row in rows if row[1] != row[2]]
    making = Table(
        f"Params that differ: {len(differing) or 'none'}", ("", "A", "B"), [names, *differing]
    )
    return replace(report, tables=[*report.tables, making])
