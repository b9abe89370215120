"""Scheduled runs with Prefect, the servers of `make up`, and searches with Optuna."""
