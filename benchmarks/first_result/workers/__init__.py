"""One module a library: `python -m benchmarks.first_result.workers.NAME JOB MODEL ROWS OUTPUT RATE`.

Written as a user of that library writes it; it prints a mark where a milestone is passed.
"""
