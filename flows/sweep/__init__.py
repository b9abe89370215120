"""A sweep: many trainings in search of better params. Optuna asks and tells, MLflow shows them.

`python -m flows.sweep` drives it; each training is a job in a checkout of its own, on this machine or on the
workers of Prefect's pool. All that a driver knows is in Optuna's storage and in names that follow from it,
so that one that was killed goes on where it was. See docs/sweeps.md.
"""
