"""How a run gets to MLflow: the tracker's protocol, the journal, the sender, the delivery, the store.

May import: params; delivery and store import `mlflow` too, inside functions. The core may import
`tracking.tracker` and `tracking.journal` only.
"""
