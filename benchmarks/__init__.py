"""Benchmarks: each prints ratios taken within one run, and says on what machine."""
