"""The params: their sections with defaults and limits, checks, and presets."""
