"""A run: the tracker's protocol, a training's records on disk, the follower that sends them to MLflow.

May import: store, params; delivery and follower import `mlflow` too, inside functions. The core may import
`run.tracker` and `run.records` only.
"""
