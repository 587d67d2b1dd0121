"""All rows: theorems and invariances, each with a meaning, a source and a check that can fail."""

from benchmarks.conformance.peers import (
    policy_rows,
    preference_rows,
    return_rows,
    training_rows,
)

ROWS = (
    *preference_rows.ROWS,
    *training_rows.ROWS,
    *policy_rows.ROWS,
    *return_rows.ROWS,
)
