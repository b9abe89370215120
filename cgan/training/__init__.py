"""Trains a conditional GAN: what `auto` becomes, the loop, one update, checkpoints, monitoring.

May import: params, images, model, quality (probes look through the judge).
"""
