"""Ranges of the numbers that users and files give."""

import dataclasses
import math
from typing import Annotated, Any

# Largest score, weight or margin, in size. There float32 goes in steps of 64, and no square of it,
# nor a sum of squares over a million tokens and a billion parameters, leaves float32's range
# (1e18 x 1e6 x 1e9 = 1e33, of 3e38); beyond it training would end with a loss of NaN.
LARGEST = 1e9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """Interval of finite numbers from `least` to `most`.

    above, below: `least`, or `most`, itself is not in it.
    whole: only whole numbers are.

    >>> 1 in Range(least=0, most=1), 1.0 in Range(least=0, most=1, below=True)
    (True, False)
    """

    least: float
    most: float
    above: bool = False
    below: bool = False
    whole: bool = False

    def __contains__(self, value: Any) -> bool:
        kinds = int if self.whole else int | float
        if not isinstance(value, kinds) or isinstance(value, bool):
            return False
        starts = self.least < value if self.above else self.least <= value
        return starts and (value < self.most if self.below else value <= self.most)

    def __str__(self):
        kind, start = "whole number" if self.whole else "number", "above" if self.above else "from"
        end = "below" if self.below else "to"
        return f"a {kind} {start} {self.least:,} {'up ' * self.above}{end} {self.most:,}"

    @property
    def interval(self) -> str:
        """The range as mathematicians write it.

        >>> Range(least=0, most=1, below=True).interval
        '[0, 1)'
        """
        ends = (str(end) if isinstance(end, int) else f"{end:g}" for end in (self.least, self.most))
        return f"{'(' if self.above else '['}{', '.join(ends)}{')' if self.below else ']'}"

    @property
    def in_words(self) -> str:
        """The range in words; an end that is infinite is left out.

        >>> ABOVE_ZERO.in_words, NOT_NEGATIVE.in_words, SHARE.in_words
        ('above 0', 'at least 0', 'in [0, 1]')
        """
        if self.most < math.inf:
            return f"in {self.interval}"
        return f"{'above' if self.above else 'at least'} {self.least}"


def whole(most: int, least: int = 1) -> Range:
    """Whole numbers from `least` to `most`.

    >>> str(whole(1024))
    'a whole number from 1 to 1,024'
    """
    return Range(least=least, most=most, whole=True)


# Ranges of the arguments of formulas.
ABOVE_ZERO = Range(least=0, most=math.inf, above=True)
NOT_NEGATIVE = Range(least=0, most=math.inf)
SHARE = Range(least=0, most=1)
SHARE_BELOW_ONE = Range(least=0, most=1, below=True)
SHARE_ABOVE_ZERO = Range(least=0, most=1, above=True)
INNER_SHARE = Range(least=0, most=1, above=True, below=True)
FLIP_PROBABILITY = Range(least=0, most=0.5, below=True)
POSITIVE_FLIP_PROBABILITY = Range(least=0, most=0.5, above=True, below=True)
COUNT = Range(least=1, most=math.inf, whole=True)

# Types of hyper-parameters and settings: numbers of a range.
Real = Annotated[float, Range(least=-3.4e38, most=3.4e38)]  # any that is finite in float32
Weight = Annotated[float, Range(least=0, most=1e30)]
Positive = Annotated[float, Range(least=0, most=1e30, above=True)]
Share = Annotated[float, SHARE]
ShareBelowOne = Annotated[float, SHARE_BELOW_ONE]
FlipProbability = Annotated[float, FLIP_PROBABILITY]
