"""From wherever the images come to checked tensors: sources, the CSV reader, datasets, drift.

May import: params. The only package that reaches the network.
"""
