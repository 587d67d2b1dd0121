"""The main job on the embedded human ratings, from the texts to the report.

jaxalign rlhf --config rlhf

The defaults; a starting point for variations. Device: CPU, two cores; about 4 minutes.
Expected: the table in `benchmarks/results/rlhf.md`.
"""

from jaxalign.config.rlhf import RLHFConfig


def get_config() -> RLHFConfig:
    """The defaults of `jaxalign rlhf`."""
    return RLHFConfig()
