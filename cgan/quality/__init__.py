"""Measures how good drawings are beside real images: metrics, and the judge that most look through.

The judge is also called the classifier or the feature extractor elsewhere.
"""
