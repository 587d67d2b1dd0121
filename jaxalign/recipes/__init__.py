"""Rows in, trained model out: what commands and the main job have in common."""
