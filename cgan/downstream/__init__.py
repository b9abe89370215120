"""The downstream use of drawings: do they help a classifier? Sets, classifiers, rounds, and the interval of
the difference.

May import: training, quality, images, splitting, model, params. No MLflow, no command line.
"""
