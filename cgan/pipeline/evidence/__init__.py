"""Whether drawings help a classifier: an answer for a project, with a report and a page."""
