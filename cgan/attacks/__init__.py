"""Tells what drawings give away: attacks that ask who was in the training data, and how the answer is put.

May import: downstream, quality, images, model. No MLflow, no command line.
"""

GIVES_AWAY = (
    "gives away"  # the verdict by which nothing should be shared; here, where nothing is imported
)
