"""The text side: words of a caption, prompt templates, embeddings."""
