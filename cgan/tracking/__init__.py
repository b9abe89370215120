"""A run's way to MLflow: the protocol that the training speaks, the journal, the process that delivers it.

May import: params, and `mlflow`, in what delivers. The core sees `tracking.tracker` alone.
"""
