"""The trained generator for its users: the public class, drawings as files, the MLflow model.

May import: model, and the registry for the names that it gives. An MLflow model carries this code along.
"""
