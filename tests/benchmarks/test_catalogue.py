"""The table of every function is what the docstrings say, and no docstring leaves a gap."""

import pytest

from benchmarks.catalogue import PAGE, entries, page

DOCUMENTED = ("losses", "advantages", "kl", "diagnostics")


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(), "run python -m benchmarks.catalogue --write"


@pytest.mark.parametrize(
    "entry", [e for e in entries() if e.module.startswith(DOCUMENTED)], ids=lambda e: e.name
)
def test_every_loss_says_when_and_whence(entry):
    assert entry.summary and entry.source and entry.when and entry.trl
