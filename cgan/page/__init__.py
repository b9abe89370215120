"""The page of a run: one HTML file that draws with its generator, and shows how good it is."""
