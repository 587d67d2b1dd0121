"""Data in NumPy: human ratings, users' files, tokens and batches. No models, no compiled code."""
