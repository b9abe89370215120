"""Reads labelled images from a CSV, from pictures or from Kaggle, and says what is wrong with them.

May import: params, images, splitting. `kaggle` is the only network code for data.
"""
