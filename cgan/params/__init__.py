"""The params: their sections with defaults and limits, checks, and presets.

May import: errors, settings, evaluation (the names of metrics). Everything above may import it.
"""
