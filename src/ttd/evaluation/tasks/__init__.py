"""What is measured: tags, masks, classes, expressions, bias."""
