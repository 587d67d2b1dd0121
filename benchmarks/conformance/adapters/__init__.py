"""How each peer's stored calls map onto our functions, a module for each group of functions."""
