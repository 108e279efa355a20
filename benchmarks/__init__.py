"""Benchmarks: each row is a figure beside a named baseline of the same run; see `python -m benchmarks --help`."""
