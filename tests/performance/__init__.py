"""Benchmarks: ratios against a plain run beside it, never assertions."""
