"""What became of earlier runs: the status screen, MLflow's pages, a run repeated.

May import: everything but the command line.
"""
