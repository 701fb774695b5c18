"""The tab Annotate of the page."""
