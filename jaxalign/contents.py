"""Contents of the public mathematics by theme, from the declarations beside the formulas."""

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

from jaxalign import losses
from jaxalign.losses import (
    DISTILLATION_LOSSES,
    GROUP_LOSSES,
    ONLINE_LOSSES,
    PAIR_LOSSES,
    REWARD_LOSSES,
    UNPAIRED_LOSSES,
)
from jaxalign.losses.declarations import (
    COMPARISONS,
    DISTILLATION,
    ONLINE,
    PAIRED,
    SAMPLED,
    UNPAIRED,
    Loss,
)
from jaxalign.losses.group_methods import GroupMethod

# The headings, in this order; below each the files whose functions are declared as no loss.
HEADINGS = {
    "Supervised": ("losses.cross_entropy",),
    COMPARISONS.heading: (),
    PAIRED.heading: ("losses.ld_dpo", "losses.wpo"),
    UNPAIRED.heading: (),
    ONLINE.heading: (),
    SAMPLED.heading: ("losses.ppo", "losses.aggregation", "losses.importance"),
    DISTILLATION.heading: (),
    "Advantages and rewards per step": ("advantages",),
    "KL divergence": ("kl",),
    "Diagnostics": ("diagnostics",),
    "Log-probabilities": ("logprobs",),
    "Masks": ("numerics.masking",),
    "Batches": ("batches",),
}
Public = Callable[..., Any]  # a function, or a class of batches


def declarations() -> list[Loss | GroupMethod]:
    """Every declared loss."""
    tables = (
        *(REWARD_LOSSES, PAIR_LOSSES, UNPAIRED_LOSSES, ONLINE_LOSSES),
        *(DISTILLATION_LOSSES, GROUP_LOSSES),
    )
    return [loss for table in tables for loss in table.values()]


def heading_of(public: Public) -> str:
    """The heading that a function stands under: that of the loss which it is declared as, or which
    its file declares first; of other files the table says it.

    Raises:
      LookupError: nothing says it.
    """
    file = vars(sys.modules[public.__module__]).values()
    in_file = [value for value in file if isinstance(value, Loss | GroupMethod)]
    own = [loss for loss in declarations() if loss.formula.__name__ == public.__name__]
    if own or in_file:
        return (own or in_file)[0].kind.heading
    for heading, modules in HEADINGS.items():
        if any(f"{public.__module__}.".startswith(f"jaxalign.{module}.") for module in modules):
            return heading
    raise LookupError(
        f"{public.__name__} has no heading: declare a loss in {public.__module__}, or give the "
        "file a line in jaxalign.contents.HEADINGS"
    )


def themes(offered: Sequence[Public]) -> dict[str, list[str]]:
    """Names of public functions and classes by heading, losses in the order of their declarations.

    >>> themes([losses.kto_loss, losses.dpo_loss])
    {'Paired preferences': ['dpo_loss'], 'Unpaired preferences': ['kto_loss']}
    """
    order = {name: place for place, name in enumerate(vars(losses))}
    unwrapped = [inspect.unwrap(one) for one in offered]
    rows = sorted(
        unwrapped, key=lambda x: (order.get(x.__name__, len(order)), x.__module__, x.__name__)
    )
    headings = {public.__name__: heading_of(public) for public in rows}
    return {
        heading: below
        for heading in HEADINGS
        if (below := [name for name, found in headings.items() if found == heading])
    }


def contents(offered: Sequence[Public]) -> str:
    """The list as text: a theme, and below it its names, in lines of at most 80 characters."""
    parts = list[str]()
    for heading, names in themes(offered).items():
        lines = [""]
        for name in names:
            longer = f"{lines[-1]}, {name}" if lines[-1] else name
            if len(longer) > 76:
                lines.append(name)
            else:
                lines[-1] = longer
        parts.append("\n".join((heading, *(f"  {line}" for line in lines))))
    return "\n\n".join(parts)
