"""A world so small that every response is enumerated: truth without sampling noise."""
