"""What was measured, and how `mini` was made: not part of the package, run from the repository's folder."""
