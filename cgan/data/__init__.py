"""Reads labelled images from a CSV, from pictures or from Kaggle, checks and divides them.

`kaggle` is the only network code for data.
"""
