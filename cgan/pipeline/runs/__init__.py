"""Runs: reports on one, comparisons of two, MLflow's pages, a card to publish."""
