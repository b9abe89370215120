"""Plots a run with matplotlib: loss curves, the confusion matrix, a diagram of each network.

May import: model (a diagram shows a network).
"""
