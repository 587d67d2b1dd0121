"""The race of `benchmarks.speed`: its protocol, what it counts, and the table."""

import sys

import pytest

from benchmarks.speed.__main__ import table
from benchmarks.speed.race import Entry, race
from benchmarks.speed.work import SIZES, WORKS

pytestmark = pytest.mark.slow


def test_sides_take_turns_and_say_what_they_are_and_who_fails_is_left_out():
    entries = {Entry("XLA", "jax_product"): sys.executable, Entry("none", "nobody"): sys.executable}
    (worker,), absent = race(entries, "", "", rounds=2)
    assert len(worker.seconds) == len(worker.cpu_seconds) == 2 and min(worker.seconds) > 0
    assert worker.peak_mib > 50 and worker.versions.keys() == {"jax"}
    assert "nobody" in absent["none"]


def test_nominal_operations_are_those_of_a_row_each():
    """Products counted one by one, for the small model and 64 + 192 tokens."""
    tokens, width, hidden, vocabulary = 256, 256, 1024, 4096
    projections = 4 * width * width + 3 * width * hidden
    attention = sum(2 * width * (2 * seen) for seen in range(1, tokens + 1))
    layers = 4 * (2 * projections * tokens + attention)
    logits = 2 * width * vocabulary * 192
    assert WORKS["dpo"].flops(SIZES["small"]) == pytest.approx(
        4 * 2 * 3 * (layers + logits), rel=1e-3
    )


def test_the_table_compares_seconds_of_the_same_round():
    shared = {"work": "dpo", "size": "small", "rate": 10.0, "flops": 5e9, "peak_gflops": 10.0}
    shared |= {"malloc": "same", "race": "1"}
    shared |= {"command": "--work dpo", "date": "2026-01-02", "versions": {"jax": "1.2"}}
    ours = shared | {"name": "jaxalign", "seconds": [1.0, 2.0, 4.0], "peak_mib": 30.0}
    peer = shared | {"name": "TRL", "seconds": [3.0, 8.0, 8.0], "peak_mib": 40.0}
    alone = peer | {"name": "Tunix", "race": "2"}
    text = table([ours, peer, alone])
    line = "| dpo | small | TRL | 10 | 8.000 (3.000, 8.000) | 3.00x | 6% | 40 | 0.75x |"
    assert line in text and "| 2.000 (1.000, 4.000) |  | 25% | 30 |  |" in text
    assert text.count("`--work dpo`: 2026-01-02, peak 10 GFLOP/s") == 1
    assert "- TRL (dpo): jax 1.2" in text
    assert "| dpo | small | Tunix | 10 | 8.000 (3.000, 8.000) |  | 6% | 40 |  |" in text
