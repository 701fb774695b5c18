"""Taggers that read the caption alone: nouns by NLTK or spaCy, and language models (Tables 2a and 8)."""
