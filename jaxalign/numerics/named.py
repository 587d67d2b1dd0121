"""Tables of declared things (losses, model families, tasks) by their names."""

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Named(Protocol):
    """Anything that is declared under a name on the command line or in a file."""

    @property
    def name(self) -> str:
        """Unique among those of its kind."""
        ...


Declaration = TypeVar("Declaration", bound=Named)


def by_name(declared: Sequence[Declaration]) -> dict[str, Declaration]:
    """Declarations by their names, in their order.

    Raises:
      TypeError: two of one name.
    """
    table: dict[str, Declaration] = {}
    for one in declared:
        if one.name in table:
            raise TypeError(
                f"{one.name} is declared twice; give one {type(one).__name__} another name"
            )
        table[one.name] = one
    return table
