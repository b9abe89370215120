"""Who is champion: the registry in MLflow, the gate that decides, the re-evaluation on new data.

May import: everything except serving, stages, runs and the command line.
"""
