"""`cgan validate`: what a project's data are, and what a run will do with them."""
