"""Configuration of the rows that a command reads."""

import dataclasses
from typing import Literal

from jaxalign.config.checks import config, require
from jaxalign.config.ranges import InnerShare, Length


@config
class DataConfig:
    """Where rows come from and what is done with bad ones."""

    path: str = ""
    """A file of rows (.jsonl, .json, .csv, .tsv, gzipped or not, .parquet, .arrow, .feather), a
    pattern of files, a folder of Hugging Face datasets, or `tfds:NAME[/CONFIG]:SPLIT`."""
    evaluation_path: str = ""
    """Held-out rows, same forms; empty: none."""
    evaluation_share: InnerShare | None = None
    """Share of the rows of `path` that are held out instead, in (0, 1): drawn by the seed, all
    rows of a prompt together."""
    fields: dict[str, str] = dataclasses.field(default_factory=dict)
    """Our field names to those of the source, where they differ: `prompt question`."""
    on_bad_row: Literal["error", "skip"] = "error"
    """Stop at bad rows, or leave them out and say how many and which."""
    max_length: Length | None = None
    """Longest row in tokens, from 4: prompt and response together, or the prompt where responses
    are sampled. None: 1024 (as TRL) for a published model, or one of 10 million parameters, and
    128 for a small one; no more than the model reads."""
    on_long_row: Literal["error", "truncate", "skip"] = "error"
    """Take a longer row as a bad one; or cut it: the prompt loses its beginning, the answer its
    end, after which nothing is learned about ending; or leave it out. It is said of how many."""

    def __post_init__(self):
        require(
            not self.evaluation_path or self.evaluation_share is None,
            f"--data.evaluation_path {self.evaluation_path} and --data.evaluation_share "
            f"{self.evaluation_share} are both given; give one of them",
        )

    @property
    def longest(self) -> int:
        """`max_length` once it is settled, which happens before rows are read."""
        assert self.max_length is not None, "max_length follows the model, which nobody has asked"
        return self.max_length


def require_no_held_out(data: DataConfig, command: str):
    """Raise a one-line `UserError` where held-out rows are given to a command that reads none."""
    for name in ("evaluation_path", "evaluation_share"):
        require(
            not getattr(data, name),
            f"{command} reads no held-out rows; leave data.{name} out and use `jaxalign evaluate`",
        )
