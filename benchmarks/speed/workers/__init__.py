"""One module a library: `python -m benchmarks.speed.workers.NAME WORK SIZE`, see `pace.py`."""
