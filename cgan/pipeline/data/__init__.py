"""A project's data: what a run will do with them, and folders and CSVs made of them."""
