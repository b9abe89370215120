"""From wherever the images come to checked tensors: sources, CSVs, pictures, their report, parts and files.

May import: params; of `model` `file_facts` alone. `kaggle` is the only network code for data.
"""
