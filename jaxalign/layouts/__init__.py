"""Layouts: where a step runs, with the same update everywhere."""
