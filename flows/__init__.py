"""Prefect: when the stages run. DVC decides which of them are stale."""
