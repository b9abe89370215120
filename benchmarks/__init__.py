"""Benchmarks: `python -m benchmarks short | all | gpu`. What is measured, and how: docs/benchmarks.md."""
