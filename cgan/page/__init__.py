"""The page of a run: one HTML file that draws with its generator, and shows what became of the training.

Scripts and styles are files of their own here, inlined when a page is made.
"""
