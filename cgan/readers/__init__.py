"""Labelled images from where they are: a CSV, pictures, Kaggle; and what is wrong with them.

May import: params, images, splitting. `kaggle` is the only network code for data.
"""
