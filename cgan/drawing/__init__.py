"""Draws with a trained generator: `Generator`, drawings as files, plots, the card, the MLflow model."""
