"""Images for people: colours, overlays, figures."""
