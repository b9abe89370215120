"""Do drawings help a classifier? Sets, classifiers, rounds, and the interval of what they tell.

May import: training, quality, data, model, params. No MLflow, no command line.
"""
