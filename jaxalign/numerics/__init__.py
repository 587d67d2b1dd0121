"""Numerics of every formula: precision, matrix products, masked statistics, collectives."""
