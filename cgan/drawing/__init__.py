"""Draws with a trained generator: `Generator`, drawings as files, plots, the model card, the MLflow model.

An MLflow model carries this code along.
"""
