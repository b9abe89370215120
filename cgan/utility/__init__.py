"""Tells whether drawings help a classifier: trains some with and without them, and compares."""
