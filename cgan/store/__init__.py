"""The MLflow store: its address, whether its database answers, its server and its pages.

May import: files, project, errors; `mlflow` and SQLAlchemy inside functions.
"""
