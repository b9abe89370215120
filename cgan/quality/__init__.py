"""What drawings are worth: the judge (a class network), the metrics, their comparison and their words.

The judge is also called the classifier or the feature extractor elsewhere. May import: params, images,
model, pictures.
"""
