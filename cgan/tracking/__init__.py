"""A training in MLflow: its folder of records, and how they get there.

May import: params and what lies below it. `mlflow` is imported in functions; the core knows the Tracker only.
"""
