"""Installed libraries on theorems and invariances: one matrix, ours a column of it."""
