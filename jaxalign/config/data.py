"""Configuration of the rows that a command reads."""

import dataclasses
from typing import Literal

from jaxalign.config.checks import config, require
from jaxalign.config.ranges import InnerShare, Length
from jaxalign.numerics.bounds import LARGEST


@config
class DataConfig:
    """Where rows come from and what is done with bad ones."""

    path: str = ""
    """A file of rows (.jsonl, .json, .csv, .tsv, .txt, gzipped or not, .parquet, .arrow, .feather),
    a pattern of files, a folder of Hugging Face datasets or of texts, a data set of the hub,
    `hf:OWNER/NAME[:CONFIG][:SPLIT]`, or `tfds:NAME[/CONFIG]:SPLIT`."""
    text: Literal["line", "document"] | None = None
    """What of a .txt file is a row, `text`: a line, or the file. None: a line of a single file, and
    a document where a pattern or a folder names several."""
    mixture: dict[str, float] = dataclasses.field(default_factory=dict)
    """In place of `path`, several sources and their weights, `a.jsonl 0.7 b.parquet 0.3`: an epoch
    has as many rows as all of them, each source its share, repeated or drawn by the seed."""
    streaming: bool = False
    """Keep the rows on disk and read each when it is its turn, for data that memory does not hold;
    what is computed is the same. `sft` with `--init`, and `dpo`."""
    evaluation_path: str = ""
    """Held-out rows, same forms; empty: none."""
    evaluation_share: InnerShare | None = None
    """Share of the rows to train on that are held out instead, in (0, 1): drawn by the seed, all
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

        require(
            not self.path or not self.mixture,
            f"--data.path {self.path} and --data.mixture are both given; give one of them",
        )
        for source, weight in self.mixture.items():
            require(
                0 < weight <= LARGEST,
                f"data.mixture weighs {source} by {weight:g}; give a number above 0",
            )

    @property
    def sources(self) -> dict[str, float]:
        """The sources of the rows to train on, with their weights."""
        return self.mixture or {self.path: 1.0}

    @property
    def source(self) -> str:
        """The sources of the rows to train on, in words."""
        return " and ".join(self.sources)

    @property
    def longest(self) -> int:
        """`max_length` once it is settled, which happens before rows are read."""
        assert self.max_length is not None, "max_length follows the model, which nobody has asked"
        return self.max_length


def require_in_memory(data: DataConfig, command: str):
    """Raise a one-line `UserError` where rows on disk are asked of a command that needs them in
    memory.
    """
    require(
        not data.streaming,
        f"{command} needs its rows in memory; leave data.streaming out (sft with --init and dpo "
        "read them from disk)",
    )
