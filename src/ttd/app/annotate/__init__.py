"""The Annotate tab of the page."""
