"""Prompts of online methods, and their random order over iterations."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxalign.batches.tokens import TokenBatch
from jaxalign.data.batching import prompt_batch
from jaxalign.data.chat import TokenIds
from jaxalign.data.example_order import batch_indices
from jaxalign.data.records import PromptRow


class PromptBatch(NamedTuple):
    """Prompts of an iteration.

    rows: `[B, T]` token prompts.
    prompt_index: `[B]` which of all prompts each is.
    number: of the iteration, from 0.
    """

    rows: TokenBatch
    prompt_index: np.ndarray
    number: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompts as token ids for the policy, and as rows for reward functions.

    ids: token ids of each, BOS included.
    records: the rows that they come from, whose text and columns reward functions get; None: they
      get the prompts decoded.
    """

    ids: Sequence[TokenIds]
    records: Sequence[PromptRow] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def longest(self) -> int:
        """Length of the longest in tokens; 0 where there are none."""
        return max(map(len, self.ids), default=0)


NO_PROMPTS = Prompts(ids=())


def prompt_batches(
    prompts: Prompts, *, seed: int, pad_id: int, size: int, repeats: int = 1
) -> Callable[[int], PromptBatch]:
    """`iteration -> PromptBatch`: prompts in random order.

    Args:
      prompts: all of them.
      seed: of the order.
      pad_id: of the policy's vocabulary.
      size: prompts in an iteration.
      repeats: rows side by side that each stands in.
    """
    ids, length = prompts.ids, prompts.longest

    def batch(number: int) -> PromptBatch:
        index = np.repeat(batch_indices(number, len(ids), size, seed), repeats)
        rows = prompt_batch(
            [ids[i] for i in index], pad_id=pad_id, length=length, index=np.arange(len(index))
        )
        return PromptBatch(rows, index, number)

    return batch
