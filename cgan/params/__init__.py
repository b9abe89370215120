"""params.yaml: its sections and their limits, how it is read, and what writes into it.

May import: errors and files. Everything else may import it.
"""
