"""`cgan evidence` and `cgan sharing` of a project: reports."""
