"""Drawing without a plotting library: a canvas with text, the confusion matrix, network diagrams.

May import: model (a diagram shows a network).
"""
