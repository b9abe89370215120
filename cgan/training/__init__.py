"""Trains a conditional GAN: `fit`, values for `auto`, the loop, one update, checkpoints, monitoring."""
