"""Ranges of the numbers in a model's configuration: one table, for models of every source.

The largest sizes are far beyond any published model: what exceeds them is a damaged or hostile
file, which would take all memory before its tensors are seen to be missing.
"""

import dataclasses
from typing import Any

from jaxalign.errors import UserError
from jaxalign.numerics.bounds import Range, whole
from jaxalign.system.files import quote

POSITIVE = Range(least=0, most=10**6, above=True)
FROM_ZERO = Range(least=0, most=10**6)
LENGTH = whole(2**31 - 1)  # positions are int32
BASE = Range(least=1, most=10**15, above=True)
RANGES = {
    "vocab_size": whole(2**24),
    "max_length": LENGTH,
    "width": whole(2**20),
    "layers": whole(1024),
    "heads": whole(2**14),
    "kv_heads": whole(2**14),
    "head_size": whole(2**16),
    "mlp_width": whole(2**24),
    "attention_scale": POSITIVE,
    "attention_softcap": POSITIVE,
    "logit_softcap": POSITIVE,
    "embedding_scale": POSITIVE,
    "norm_epsilon": Range(least=0, most=1, above=True),
    "rope_theta": BASE,
    "window_rope_theta": BASE,
    # of NgramConfig
    "token_characters": whole(256, least=0),
    "buckets": whole(2**31 - 1),
    "power": Range(least=0, most=10),
    # of RopeScaling
    "factor": Range(least=1, most=10**6),
    "original_length": LENGTH,
    "low_frequency_factor": POSITIVE,
    "high_frequency_factor": POSITIVE,
    "beta_fast": POSITIVE,
    "beta_slow": POSITIVE,
    "attention_factor": POSITIVE,
}


def check_ranges(config: Any) -> None:
    """Raise a `UserError` that names the first field of a dataclass that is out of its range."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in RANGES or (value is None and field.default is None):
            continue
        if value not in RANGES[field.name]:
            raise UserError(f"{field.name} must be {RANGES[field.name]}, got {quote(value)}")
