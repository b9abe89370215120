"""Tells what drawings give away: attacks that ask who was in the training data, and how the answer is put.

May import: downstream, quality, images, model. No MLflow, no command line.
"""
