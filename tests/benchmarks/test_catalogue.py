"""The table of every function is what the docstrings say, and no docstring leaves a gap."""

import pytest

import jaxalign
from benchmarks.catalogue import GUIDE, PAGE, entries, guide, page
from jaxalign.contents import declarations, heading_of
from jaxalign.numerics.precision import widen

DOCUMENTED = ("losses", "advantages", "kl", "diagnostics")


@pytest.mark.parametrize(("path", "write"), [(PAGE, page), (GUIDE, guide)])
def test_the_pages_are_up_to_date(path, write):
    assert path.read_text() == write(), "run python -m benchmarks.catalogue --write"


@pytest.mark.parametrize(
    "entry", [e for e in entries() if e.module.startswith(DOCUMENTED)], ids=lambda e: e.name
)
def test_every_loss_says_when_and_whence(entry):
    said = {"first sentence": entry.summary, "Source:": entry.source, "When:": entry.when}
    missing = [part for part, text in (said | {"TRL:": entry.trl}).items() if not text]
    assert not missing, f"the docstring of {entry.module}.{entry.name} has no {missing[0]}"


def test_a_function_without_a_heading_is_an_error():
    assert heading_of(jaxalign.cross_entropy_loss) == "Supervised"
    with pytest.raises(LookupError, match="widen has no heading: declare a loss in"):
        heading_of(widen)


def test_every_declared_loss_is_documented_under_its_public_function():
    """The formula is offered by `import jaxalign`, and its file declares it."""
    documented = {entry.name: entry for entry in entries()}
    for loss in declarations():
        assert loss.formula.__name__ in documented, loss.name
        own = [one for one in declarations() if one.formula is loss.formula]
        assert heading_of(loss.formula) == own[0].kind.heading
