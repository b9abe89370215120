"""Measures how good drawings are beside real images: the metrics, and the judge that most of them look through.

The judge is also called the classifier or the feature extractor elsewhere. May import: params, images,
model, pictures.
"""
