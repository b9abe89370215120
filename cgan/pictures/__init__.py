"""Plots of a run, by matplotlib: curves, the confusion matrix, a diagram of each network.

May import: model (a diagram shows a network).
"""
