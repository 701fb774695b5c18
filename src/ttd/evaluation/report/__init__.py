"""Runs beside published numbers, as tables and pages."""
