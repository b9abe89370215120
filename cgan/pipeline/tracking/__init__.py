"""A training's run in MLflow: live while it goes on, then completed from what the stages left.

`mlflow` is imported in functions.
"""
