"""Image-text pairs: shards and folders of them, damage, tags chosen beforehand, pruning by similarity."""
