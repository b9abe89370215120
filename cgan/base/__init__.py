"""Errors, files, texts and reports: the room below all others, which knows nothing of images."""
