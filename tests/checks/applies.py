"""To which cases a check applies."""

from collections.abc import Callable

from tests.cases.case import Case


def to_those(condition: Callable[[Case], object]) -> Callable[[Callable], Callable]:
    """A decorator: the check is made of the cases for which the condition holds."""

    def mark(check: Callable) -> Callable:
        check.applies = condition
        return check

    return mark
