"""Draws with a trained generator: the public class, drawings as files, the model card, the MLflow model.

May import: model, and the registry in MLflow, to find the file behind a name such as
`champion`. An MLflow model carries this code along.
"""
