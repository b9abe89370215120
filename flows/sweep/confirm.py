"""Is the best trial better, or was it lucky? It and the params of today are trained with fresh seeds.

The value by which a trial won is not used: the best of many is so by its luck too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from flows.sweep.jobs import Job, Seen, State, work
from flows.sweep.search import Driver
from flows.sweep.study import VALUES, Counted

Results = dict[str, dict[int, float | None]]  # role → seed → the objective, None where it failed


def best_of(study: optuna.Study) -> FrozenTrial | None:
    if not study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
        return None
    return study.best_trial


@dataclass
class Confirmation(Driver):
    """The trainings with fresh seeds."""

    def __post_init__(self) -> None:
        self.attempts = Counted(self.study)
        self.results: Results = {"best": {}, "present": {}}

    def run(self, best: FrozenTrial, parallel: int) -> Results:
        """The objective of both, with each seed. What is known from a former driver is not trained again."""
        work(
            self.place,
            self._jobs(best),
            parallel,
            self.attempts,
            lambda _: True,
            self._ended,
        )
        return self.results

    def _jobs(self, best: FrozenTrial) -> Iterator[Job]:
        own = self.params.train.seed
        for seed in range(own + 1, own + 1 + self.params.sweep.seeds):
            for role, values in self._both(best).items():
                of = f"trial-{best.number}" if role == "best" else "present"
                name = f"{self.study.study_name}-{self.facts.token}-{of}-seed-{seed}"
                key = f"seed result {name}"
                known = self.study.user_attrs.get(key)
                if known is not None:
                    self.results[role][seed] = known
                    continue
                # It failed; whoever starts the sweep again wants it tried again.
                if key in self.study.user_attrs:
                    self.attempts.again(Job(name, {}, {}))
                tags = self.pages.child_tags(self.study.study_name, self.parent, name, role)
                tags |= {"cgan.sweep.seed": str(seed), "cgan.sweep.trial": str(best.number)}
                overrides: dict[str, Any] = {**self.facts.base, **values, "train.seed": seed}
                self.say(f"{of.replace('-', ' ')} with seed {seed}")
                yield Job(name, overrides, tags)

    def _both(self, best: FrozenTrial) -> dict[str, dict[str, Any]]:
        return {"best": best.user_attrs[VALUES], "present": {}}

    def _ended(self, job: Job, seen: Seen) -> None:
        role, seed = job.tags["cgan.sweep.role"], int(job.tags["cgan.sweep.seed"])
        value: float | None = None
        words = seen.words
        if seen.state is State.DONE:
            measured = self.pages.measured(job, self.facts.objective)
            words = measured if isinstance(measured, str) else f"{measured.value:.4g}"
            value = None if isinstance(measured, str) else measured.value
        self.results[role][seed] = value
        self.pages.mark(job, "failed" if value is None else "complete")
        self.study.set_user_attr(f"seed result {job.name}", value)
        self.say(f"{role} with seed {seed}: {words}")
