"""Draws with a generator: `Generator`, drawings as files, plots, the card, the MLflow model."""
