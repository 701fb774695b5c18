"""From an image and texts to maps, masks and labels: options, views, resizing, features."""
