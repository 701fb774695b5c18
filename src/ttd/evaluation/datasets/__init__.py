"""Data sets: where their files lie and what they mean."""
