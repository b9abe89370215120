"""A sweep: many trainings in search of better params. Optuna proposes and remembers, MLflow shows.

`python -m flows.sweep` drives it, with a thread for each training that runs. A training is a job: a run on
Prefect's pool, or a process of this machine. All that a driver knows is in Optuna's storage and in names that
follow from it, so that the same command goes on after a kill. See docs/sweeps.md.
"""
