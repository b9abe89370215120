"""`cgan compare`: how two runs differ, and in which params."""

from dataclasses import replace

from cgan.base.report import Report, Table
from cgan.pipeline.registry.recorded_run import find


def compare_runs(a: str, b: str) -> Report:
    """What `cgan.compare` says of two runs, each of which is what `find` takes; with their names and the
    params that differ."""
    found_a, found_b = find(a), find(b)
    evaluations = found_a.evaluation, found_b.evaluation
    from cgan.quality.comparison import compare  # with torch, for which no mistake has to wait

    report = compare(*evaluations).report()
    run_a, run_b = found_a.training, found_b.training
    params_a, params_b = run_a["params"], run_b["params"]
    rows = [(key, params_a.get(key, "–"), params_b.get(key, "–")) for key in params_a | params_b]
    names = "run", run_a.get("run_name", ""), run_b.get("run_name", "")
    differing = [row for row in rows if row[1] != row[2]]
    title = f"Params that differ: {len(differing) or 'none'}"
    table = Table(title, ("", "A", "B"), [names, *differing])
    return replace(report, tables=[*report.tables, table])
