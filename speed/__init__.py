"""Measurements: every module prints a ratio of two ways to one result, both timed in one run."""
