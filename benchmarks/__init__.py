"""Measurements side by side: `python -m benchmarks`, and scripts of one matter each."""
