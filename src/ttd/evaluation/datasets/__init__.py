"""Data sets: where their files are and what they mean."""
