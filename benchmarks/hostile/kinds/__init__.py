"""The kinds of fault, a file each: `trials(base, seed)` gives its trials."""

from collections.abc import Callable, Iterator
from importlib import import_module

from benchmarks.hostile.base import Base
from benchmarks.hostile.trial import Trial

KINDS = (
    "hf_config",
    "native_config",
    "weights",
    "adapters",
    "gguf_files",
    "tokenizers",
    "templates",
    "rows",
    "sources",
    "rewards",
    "flags",
    "config_files",
    "runs",
    "foreign",
    "places",
    "names",
    "resume",
    "together",
    "signals",
    "kills",
    "checkpoints",
    "numerics",
)


def all_trials(base: Base, seed: int) -> list[Trial]:
    """The trials of all kinds, in the order of the table."""
    return [trial for kind in KINDS for trial in generator(kind)(base, seed)]


def generator(kind: str) -> Callable[[Base, int], Iterator[Trial]]:
    """The function that gives the trials of a kind."""
    return import_module(f"benchmarks.hostile.kinds.{kind}").trials
