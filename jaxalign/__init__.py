"""Alignment fine-tuning in JAX; here its mathematics: pure, unreduced, jit, vmap and grad safe.

Losses come one a row or token: add them up over a mask and divide once. Where an argument is `bool`
whole numbers do, 0 for false. `help(jaxalign.dpo_loss)` has equation, units, ranges and the paper.
"""

# First: a program may be stopped while it imports the rest.
from jaxalign.system import signals  # noqa: F401

# isort: split
from jaxalign.system import opening  # noqa: F401

# isort: split
import inspect
import typing

from jaxalign import contents as _contents
from jaxalign.advantages import *
from jaxalign.batches.experience import *
from jaxalign.batches.preferences import *
from jaxalign.batches.tokens import *
from jaxalign.diagnostics import *
from jaxalign.kl import *
from jaxalign.logprobs import *
from jaxalign.losses import *
from jaxalign.numerics.masking import *

if not typing.TYPE_CHECKING:  # which follows the imports themselves
    __all__ = sorted(
        name
        for name, value in vars().items()
        if inspect.isclass(value) or inspect.isfunction(inspect.unwrap(value))
    )
    __doc__ += "\n" + _contents.contents([globals()[name] for name in __all__]) + "\n"

__version__ = "0.1.0"
