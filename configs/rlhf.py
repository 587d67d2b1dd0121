"""The main job on the embedded human ratings, from the texts to the report.

jaxalign rlhf --config configs/rlhf.py

The defaults; a starting point for variations. Two CPU cores; the README has time and results.
"""

from jaxalign.config.rlhf import RLHFConfig


def get_config() -> RLHFConfig:
    """The defaults of `jaxalign rlhf`."""
    return RLHFConfig()
