"""Ranges of numbers in configurations, declared in the type of each field.

A number without one must fit into int32 or float32. Upper ends are far beyond what anybody trains
with: what exceeds them is a slip, which would take all memory or make the loss NaN.
"""

import functools
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin

from jaxalign.config.field_types import options_of
from jaxalign.numerics.bounds import (
    INNER_SHARE,
    LARGEST,
    SHARE_ABOVE_ZERO,
    Range,
    whole,
)
from jaxalign.numerics.bounds import FlipProbability as FlipProbability
from jaxalign.numerics.bounds import Positive as Positive
from jaxalign.numerics.bounds import Share as Share
from jaxalign.numerics.bounds import ShareBelowOne as ShareBelowOne
from jaxalign.numerics.bounds import Weight as Weight

INT32 = Range(least=-(2**31), most=2**31 - 1, whole=True)  # jax computes with int32
FAR = 1000  # an upper end beyond it only guards against slips

Size = Annotated[int, whole(2**20)]  # rows, samples, widths
SizeOrZero = Annotated[int, whole(2**20, least=0)]
SmallSize = Annotated[int, whole(1024)]  # layers, heads
LongSize = Annotated[int, whole(2**28)]  # vocabularies, tables of weights
TopK = Annotated[int, whole(2**28, least=0)]
Length = Annotated[int, whole(2**28, least=4)]  # tokens of a row
Rank = Annotated[int, whole(2**16, least=0)]
TokenLength = Annotated[int, whole(2**16, least=0)]  # characters
Period = Annotated[int, whole(10**9)]  # steps or updates from one event to the next
Steps = Annotated[int, whole(10**9, least=0)]
Count = Annotated[int, whole(2**31 - 1)]
Passes = Annotated[float, Range(least=0, most=10**6, above=True)]
WholePasses = Annotated[int, whole(10**6)]
Seed = Annotated[int, whole(2**32 - 1, least=0)]  # beyond, jax takes two seeds as one
DigitClass = Annotated[int, whole(9, least=0)]

ShareAboveZero = Annotated[float, SHARE_ABOVE_ZERO]
InnerShare = Annotated[float, INNER_SHARE]
Rate = Annotated[float, Range(least=0, most=1000)]  # of learning and of weight decay
Power = Annotated[float, Range(least=0, most=10)]
Temperature = Annotated[float, Range(least=1e-6, most=1e6)]
Penalty = Annotated[float, Range(least=0, most=LARGEST)]
Gigabytes = Annotated[float, Range(least=0, most=1e6, above=True)]


@functools.cache
def ranged_types(cls: type) -> Mapping[str, Any]:
    """The types of the fields of a configuration by name, each number with its range."""
    return typing.get_type_hints(cls, include_extras=True)


def out_of_range(value: Any, hint: Any) -> tuple[int | float, str] | None:
    """The first number of a value that is out of the range of its type, and what it must be.

    >>> out_of_range(0, Size), out_of_range((0.5, 1.0), tuple[ShareBelowOne, ...])
    ((0, 'it must be at least 1'), (1.0, 'it must lie in [0, 1)'))
    """
    for number, allowed in _numbers(value, hint):
        if number not in allowed:
            return number, _wanted(number, allowed)
    return None


def _numbers(value: Any, hint: Any) -> Iterator[tuple[int | float, Range]]:
    """The numbers in a value, each with its range; nothing of nested configurations."""
    kind = next(option for option in options_of(hint) if option is not type(None))
    arguments = get_args(kind)
    if get_origin(kind) is Annotated and value is not None:
        yield value, arguments[1]
    elif isinstance(value, tuple):
        each = arguments[:1] * len(value) if ... in arguments else arguments
        for number, one in zip(value, each, strict=True):
            yield from _numbers(number, one)
    elif isinstance(value, dict):
        for number in value.values():
            yield from _numbers(number, arguments[1])
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value, INT32


def _wanted(number: int | float, allowed: Range) -> str:
    """Requirement that a number out of range fails, for an error message.

    An end that only guards against overflow is not named first.
    """
    if allowed.most > max(FAR, number):
        if 0 in allowed:
            return "it must not be negative"
        if allowed.whole:
            return f"it must be at least {allowed.least}"
        if number <= 0:
            return "it must be above 0"
    return f"it must lie in {allowed.interval}"
