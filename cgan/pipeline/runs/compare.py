"""`cgan compare`: how two runs differ, and what was different in their making."""

from dataclasses import replace

from cgan.pipeline.runs.recorded_run import read_run
from cgan.pipeline.tracking.run import TrainingRecord
from cgan.quality.comparison import compare
from cgan.report import Report, Table


def compare_runs(a: str, b: str) -> Report:
    """What `cgan.compare` says of two runs, each of which is what `read_run` takes; with their names, and the
    data, code and params that differ."""
    (evaluation_a, run_a), (evaluation_b, run_b) = read_run(a), read_run(b)
    report = compare(evaluation_a, evaluation_b).report()
    made_a, made_b = _making(run_a), _making(run_b)
    rows = [(key, made_a.get(key, "–"), made_b.get(key, "–")) for key in made_a | made_b]
    names = "run", run_a.get("run_name", ""), run_b.get("run_name", "")
    differing = [row for row in rows if row[1] != row[2]]
    making = Table(
        f"Made differently: {len(differing) or 'nothing'}", ("", "A", "B"), [names, *differing]
    )
    return replace(report, tables=[*report.tables, making])


def _making(run: TrainingRecord) -> dict[str, str]:
    """What made a run: its data, code and params."""
    return {key: str(value) for key, value in {**run.get("origin", {}), **run["params"]}.items()}
