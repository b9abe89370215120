"""Where a run stands among those on the same data that were measured alike, by MLflow."""

from __future__ import annotations

from cgan.metric import METRICS
from cgan.quality.intervals import contexts_differ, replicated
from cgan.registry.client import evaluation_of, open_registry
from cgan.tracking.runs import MEASURED_WITH, WEIGHTS, by_generator

METRIC = METRICS["fid_judge"]
BY = f"quality/{METRIC.key}"


def rank(run_id: str) -> str:
    """`number 2 of 5 generators by Fréchet distance, 0.335; seed 3 has 0.31, and the difference is within
    chance`.

    Empty where no other generator was measured alike. Raises TrackingError.
    """
    with open_registry() as registry:
        mine = registry.client.get_run(run_id)
        same = f"tags.`{MEASURED_WITH}` = '{mine.data.tags.get(MEASURED_WITH)}'"
        order = [f"metrics.`{BY}` ASC"]
        peers = by_generator(
            registry.client.search_runs([mine.info.experiment_id], same, order_by=order)
        )
        weights = [*peers]
        own = mine.data.tags.get(WEIGHTS, run_id)
        if own not in peers or len(peers) < 2:
            return ""
        rival = peers[weights[0 if weights.index(own) else 1]]
        pair = [evaluation_of(registry, key) for key in (run_id, rival.info.run_id)]
    text = f"number {weights.index(own) + 1} of {len(peers)} generators by {METRIC.name}, "
    text += f"{mine.data.metrics[BY]:.3g}; {rival.info.run_name} has {rival.data.metrics[BY]:.3g}"
    if all(pair) and not contexts_differ(*pair):
        ours, its = (replicated(e[METRIC.key]["value"], e[METRIC.key]["replicates"]) for e in pair)
        low, high = (ours - its).interval
        text += f", and the difference is {'within' if low <= 0 <= high else 'more than'} chance"
    return text
