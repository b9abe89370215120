"""From wherever the images come to checked tensors: sources, the CSV reader and its report,
datasets.

May import: params; of `model` `file_facts` alone. `kaggle` is the only network code for data.
"""
