"""The stages of the pipeline, as DVC starts them: a thin module each, around calls of the library.

dvc.yaml calls them by their modules, and lists what each imports.
"""
