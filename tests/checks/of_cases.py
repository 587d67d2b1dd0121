"""What is checked of every function that `import jaxalign` offers, as one class of tests."""

import functools
from collections.abc import Callable

import pytest

from tests.cases.case import Case
from tests.checks import arguments, gradients, invariances, values


def checks_of(cases: tuple[Case, ...]) -> type:
    """A class with every check that applies to some of the cases.

    A test file names it, and pytest finds it: `TestCases = checks_of(CASES)`.
    """
    checks = [
        check
        for module in (values, arguments, gradients, invariances)
        for name, check in vars(module).items()
        if name.startswith("test_")
    ]
    tests = {check.__name__: on(check, cases) for check in checks}
    return type("TestCases", (), {name: test for name, test in tests.items() if test})


def on(check: Callable, cases: tuple[Case, ...]) -> staticmethod | None:
    """The check for those cases that it applies to; None if there are none."""
    applies = getattr(check, "applies", lambda case: True)
    chosen = [case for case in cases if applies(case)]

    @functools.wraps(check)
    def test(**arguments):
        check(**arguments)

    by_name = pytest.mark.parametrize("case", chosen, ids=lambda case: case.name)
    return staticmethod(by_name(test)) if chosen else None
