"""Budget of one rendering of a chat template: a number of steps, a size of values, a time."""

import contextvars
import dataclasses
import time
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined

STEPS = 500_000  # of a rendering, besides `STEPS_PER_UNIT` for each unit of what is rendered
STEPS_PER_UNIT = 500
SECONDS = 10
UNIT = 32  # characters that are read or written for one step
LARGEST_VALUE = 2**17  # units of one value: 4 million characters or 131,072 entries of a list
LARGEST_NUMBER = 4096  # bits
CALL = 4  # steps of a call, a look-up, and of each entry that a filter goes through
VIEWS = (type({}.keys()), type({}.values()), type({}.items()))
PLAIN = (str, int, float, list, tuple, dict, range, Undefined, types.NoneType, *VIEWS)


@dataclasses.dataclass
class Budget:
    """Steps, sizes and time that are left for one rendering.

    steps: that are left.
    largest: size of one value at most, in units.
    ends: when the time is over, seconds of the monotonic clock.
    depth: number of calls within calls now.
    sizes: of containers, by id; the containers are held so that their ids stay theirs.
    """

    steps: int
    largest: int
    ends: float
    depth: int = 0
    sizes: dict[int, tuple[Any, int]] = dataclasses.field(default_factory=dict)

    def spend(self, steps: int = 1) -> None:
        """Subtract steps from the budget.

        Raises:
          SecurityError: there are not so many left, or the time is over.
        """
        self.steps -= steps
        if self.steps < 0:
            raise SecurityError("it takes more steps than any chat template needs")
        if time.monotonic() > self.ends:
            raise SecurityError(f"it takes more than {SECONDS} seconds")

    def check(self, units: int) -> None:
        """Refuse a value of more than the largest size.

        Raises:
          SecurityError: it is larger.
        """
        if units > self.largest:
            raise SecurityError("it makes a text or a list larger than any chat template needs")

    def size_of(self, value: Any) -> int:
        """Size of a value in units; entries of containers count each time that they occur."""
        if isinstance(value, str):
            return 1 + len(value) // UNIT
        if isinstance(value, int):
            if value.bit_length() > LARGEST_NUMBER:
                raise SecurityError(f"a number of more than {LARGEST_NUMBER} bits")
            return 1
        if isinstance(value, range):
            return 1 + len(value)
        if not isinstance(value, (dict, list, tuple, *VIEWS)):
            return 1
        if (known := self.sizes.get(id(value))) is not None:
            return known[1]
        size = 1
        for part in value:
            self.spend()
            parts = (part, value[part]) if isinstance(value, dict) else (part,)
            check_plain(parts)
            size += sum(map(self.size_of, parts))
            self.check(size)
        self.sizes[id(value)] = (value, size)
        return size

    def pay_for(self, value: Any) -> Any:
        """The value, after its size was checked and paid for; an iterator becomes a list."""
        if isinstance(value, Iterator):
            value = list(self.count_steps(value))
        size = self.size_of(value)
        self.check(size)
        self.spend(size)
        return value

    def count_steps(self, values: Iterable[Any]) -> Iterator[Any]:
        """The values, each of which costs a step."""
        for value in values:
            self.spend()
            yield value


BUDGET: contextvars.ContextVar[Budget] = contextvars.ContextVar("budget")


def rendering_budget(variables: Mapping[str, Any]) -> Budget:
    """Budget of one rendering, larger for larger variables of the template."""
    size = sum(map(_input_size, variables.values()))
    steps, largest = STEPS + STEPS_PER_UNIT * size, LARGEST_VALUE + 4 * size
    return Budget(steps, largest, time.monotonic() + SECONDS)


def _input_size(value: Any) -> int:
    """Size in units of a value that a rendering is given."""
    if isinstance(value, str):
        return 1 + len(value) // UNIT
    if isinstance(value, dict):
        return 1 + sum(map(_input_size, value.values()))
    return 1 + sum(map(_input_size, value)) if isinstance(value, list) else 1


def check_plain(values: Sequence[Any]) -> None:
    """Refuse values that are no plain data: the length of their text cannot be foreseen."""
    for value in values:
        if not isinstance(value, PLAIN):
            raise SecurityError(f"it uses a {type(value).__name__} as a text or in a list")
