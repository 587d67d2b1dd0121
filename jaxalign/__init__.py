"""Alignment fine-tuning in JAX; here its mathematics: pure, unreduced, jit, vmap and grad safe.

What it offers of a file stands in the file's own `__all__`.
"""

# First: a program may be stopped while it imports the rest.
from jaxalign.system import signals  # noqa: F401

# isort: split
from jaxalign.system import opening  # noqa: F401

# isort: split
import inspect
import typing

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
