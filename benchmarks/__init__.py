"""Benchmarks: `python -m benchmarks short | all | gpu | pipeline | large`. Results: docs/benchmarks.md."""
