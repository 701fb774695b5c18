"""Runs next to published numbers, as tables and pages."""
