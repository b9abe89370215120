"""What became of earlier runs: the status screen, a run repeated.

May import: everything but the command line.
"""
