"""A project around the library: DVC's stages call it, MLflow has its runs and champion, commands show them.

`cgan/stages` has the stages themselves, as dvc.yaml calls them by their module. May import: the library.
"""
