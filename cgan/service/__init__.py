"""`cgan serve`: the generator over HTTP, to people (a page) and to programs (`/draw`).

May import: drawing, registry, page and what these may; fastapi, uvicorn and prometheus-client, which the
extra `serve` brings. MLflow is imported only where a registry is asked, so that a file is served without it.
"""
