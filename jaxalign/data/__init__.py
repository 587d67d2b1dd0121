"""Data in NumPy: human ratings, users' files, tokenizers and batches."""
