"""One module a library, run with `JOB MODEL ROWS OUTPUT LEARNING_RATE`.

Written as a user of that library writes it; it prints a mark where a milestone is passed.
"""
