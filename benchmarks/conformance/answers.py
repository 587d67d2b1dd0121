"""What an adapter says about one case: our numbers under the peer's names, or why there are none.

An adapter is a function `Case -> Answer | Uncovered`; an adapter module maps the functions of a
manifest to adapters in its `ADAPTERS`. Where a peer is known to differ from the paper, the adapter
applies exactly the stated difference to our numbers and names it: what then still differs is an
unknown disagreement.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from jax.typing import ArrayLike

from benchmarks.conformance.cases import Case


@dataclass(frozen=True)
class Answer:
    """Our numbers for the outputs of a case.

    outputs: by the peer's names. None: the peer has no number to compare with (it is NaN or
      infinite there, say); needs an entry in `known` for that name.
    known: output name to the key in `KNOWN_DISAGREEMENTS` whose stated difference was applied;
      several are joined by " + ".
    tolerance: largest error allowed, relative to max(1, |theirs|); 1e-10 for float64 peers, 1e-5
      for float32 ones; anything else is derived where it is set.
    where: output name to a bool array: entries that are compared (masked ones are nobody's).
    floor: errors are relative to max(floor, |theirs|); below 1 only against exact values.
    sizes: output name to the size of terms that cancel in it; errors are relative to those too.
    """

    outputs: Mapping[str, ArrayLike | None]
    known: Mapping[str, str] = field(default_factory=dict)
    tolerance: float = 1e-10
    where: Mapping[str, ArrayLike] = field(default_factory=dict)
    floor: float = 1.0
    sizes: Mapping[str, ArrayLike] = field(default_factory=dict)


@dataclass(frozen=True)
class Uncovered:
    """A case that none of our functions computes, and why."""

    reason: str


Adapter = Callable[[Case], Answer | Uncovered]
