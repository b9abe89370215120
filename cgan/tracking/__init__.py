"""A run: the tracker's protocol, the records on disk, the follower that sends them, the store.

May import: params; delivery and store import `mlflow` too, inside functions. The core may import
`tracking.tracker` and `tracking.records` only.
"""
