"""The tasks: tags, masks, classes, expressions, bias."""
