"""Plots a run with matplotlib: curves of the training, the confusion matrix, a figure of each network.

May import: model (a figure shows a network).
"""
