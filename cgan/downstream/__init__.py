"""Tells whether drawings help a classifier: trains some with and without them, and compares their accuracies.

May import: training, quality, images, splitting, model, params. No MLflow, no command line.
"""
