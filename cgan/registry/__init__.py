"""Who is champion: the registry in MLflow, the gate that decides, its look at new data.

May import: everything except drawing, stages and the command line.
"""
