"""A new project, and which preset its params.yaml has."""
