"""What can be set: the sections of params, their defaults and limits, and presets.

May import: errors and files. Everything else may import it.
"""
