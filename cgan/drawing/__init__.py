"""The trained generator for its users: the public class, drawings as files, the MLflow model.

May import: model, and the registry in MLflow, to find the file behind a name such as
`champion`. An MLflow model carries this code along.
"""
