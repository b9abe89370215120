"""`cgan sweep`: what the sweeps found, and the best trial's params into params.yaml if they are better."""

from __future__ import annotations

# Tags of the runs of a sweep.
NAME = "cgan.sweep"
ROLE = "cgan.sweep.role"  # parent | trial | best | present
JOB = "cgan.sweep.job"
STATE = "cgan.sweep.state"
PARENT_TAG = "mlflow.parentRunId"
