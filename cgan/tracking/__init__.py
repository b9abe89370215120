"""A training in MLflow: its folder of records, and how they get there.

May import: params and what lies below it. `mlflow` is imported inside functions; the core may import
`tracking.tracker` and `tracking.records` only.
"""
