"""`cgan serve`: the generator over HTTP, to people (a page) and to programs (`/draw`).

MLflow is imported only where a registry is asked, so that a file is served without it.
"""
