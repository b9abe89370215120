"""A training's run in MLflow: live while it goes on, then completed from what the stages left.

May import: params and what lies below it. `mlflow` is imported in functions.
"""
