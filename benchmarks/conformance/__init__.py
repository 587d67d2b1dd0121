"""`python -m benchmarks.conformance`: how other libraries compare with this one."""
