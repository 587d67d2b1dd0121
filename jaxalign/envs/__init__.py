"""Environments: control and images, one small protocol."""
