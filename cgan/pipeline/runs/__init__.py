"""Runs: reports on one, comparisons of two, a training repeated, MLflow's pages, a card to publish."""
