"""Options beside the configuration: a value each, or a switch that takes none."""

import dataclasses

import pytest

from jaxalign.config.flags import given_flags
from jaxalign.config.options import Options, RunOptions, given_options
from jaxalign.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loud(RunOptions):
    loud: bool = False


def parsed(*words):
    return given_options(given_flags(words), Loud)


def test_options_are_taken_from_the_flags_wherever_they_stand():
    options, rest = parsed("--seed", "1", "--loud", "--output", "a b", "--rewards", "x", "2")
    assert options == Loud(loud=True, output="a b")
    assert rest == [("seed", ("1",)), ("rewards", ("x", "2"))]
    assert parsed() == (Loud(), [])


def test_the_old_spelling_of_the_directory_is_taken():
    assert parsed("--run-dir=runs/a")[0] == Loud(output="runs/a")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--loud", "true"), "'true' follows --loud, which takes no value"),
        (("--loud=",), "'' follows --loud, which takes no value"),
        (("--loud", "--loud"), "--loud is given twice"),
        (("--output", "a", "--run_dir", "a"), "--output is given twice"),
        (("--output",), "--output needs a value"),
        (("--run_dir", "a", "b"), "'b' follows --run_dir a, which takes one value"),
    ],
)
def test_mistakes_are_one_line(words, line):
    with pytest.raises(UserError, match=f"^{line}"):
        parsed(*words)


def test_a_command_that_writes_no_run_directory_leaves_its_options_to_the_fields():
    rest = given_options([("output", ("page.html",))], Options)[1]
    assert rest == [("output", ("page.html",))]
