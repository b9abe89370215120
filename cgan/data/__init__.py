"""From wherever the images come to checked tensors: sources, the CSV reader and its report,
datasets.

May import: params. `kaggle` is the only network code for data.
"""
