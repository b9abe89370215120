"""Measures how good drawings are beside real images: metrics, and the judge that most look through.

The judge is called the classifier, or the feature extractor, in the literature.
"""
