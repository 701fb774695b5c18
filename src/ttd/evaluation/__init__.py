"""Evaluation: benchmarks, data sets, metrics, reports."""
