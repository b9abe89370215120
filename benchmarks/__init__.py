"""Benchmarks: `python -m benchmarks --help`. Results: docs/benchmarks.md."""
