"""How fast jaxalign and other libraries do the same work: `python -m benchmarks.speed`."""
