"""A user's rows, and where a run computes."""

import dataclasses
from typing import Literal

from jaxalign.config.checks import (
    config,
    require,
)


@config
class DataConfig:
    """Where rows come from and what is done with bad ones."""

    path: str = ""
    """A file of rows (.jsonl, .json, .csv, .tsv, gzipped or not, .parquet, .arrow, .feather), a
    pattern of files, a folder of Hugging Face datasets, or `tfds:NAME[/CONFIG]:SPLIT`."""
    evaluation_path: str = ""
    """Held-out rows, same forms; empty: none."""
    fields: dict[str, str] = dataclasses.field(default_factory=dict)
    """Our field names to those of the source, where they differ: `prompt question`."""
    on_bad_row: Literal["error", "skip"] = "error"
    """Stop at bad rows, or leave them out and say how many and which."""
    max_length: int | None = None
    """Longest prompt and response together, in tokens; a longer row is a bad row. None: 1024 (as
    TRL) for a published model, or one of 10 million parameters, and 128 for a small one; no more
    than the model reads."""

    def __post_init__(self):
        length = self.max_length
        require(
            length is None or length >= 4, f"data.max_length is {length}; it must be at least 4"
        )

    @property
    def longest(self) -> int:
        """`max_length`, which a run settles before it reads rows."""
        assert self.max_length is not None, "max_length follows the model, which nobody has asked"
        return self.max_length


@config
class PlaceConfig:
    """Where a run computes."""

    layout: Literal["auto", "device", "pmap", "shards", "mesh"] = "auto"
    """One device, or data parallel over several; auto: pmap as soon as there are several."""
    devices: int | None = None
    """How many of the visible devices; None: all."""
