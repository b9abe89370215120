"""Trains a conditional GAN: values for `auto`, the loop, one update, checkpoints, monitoring.

May import: params, images, model, quality (probes look through the judge).
"""
