"""Types that formulas, models and training steps share."""

from typing import Any

Params = Any  # pytree of parameters; of models nested dicts of arrays
Tree = Any  # pytree of arrays
