"""What became of earlier runs: the status screen, a run repeated, the proof that resuming is exact.

May import: everything but the command line.
"""
