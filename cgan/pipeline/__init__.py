"""A project around the library: DVC's stages call it, MLflow keeps its runs, commands show them."""
