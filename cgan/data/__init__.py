"""From wherever the images come to checked tensors: sources, the CSV reader and its report,
datasets.

May import: params. The only package that reaches the network (`kaggle`).
"""
