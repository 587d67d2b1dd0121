"""Batches whose texts are packed for a training step, with little padding between them.

A batch stays as the loss reads it; beside it are its texts in packed rows, and where in those the
outputs for its tokens are.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxalign.batches.tokens import PackedBatch, SharedPrompts, TokenBatch, pytree
from jaxalign.data.chat import TokenRow
from jaxalign.data.packed_scoring import ATTENTION, SPANS, UNIT
from jaxalign.data.packing import best_fit
from jaxalign.data.prompt_groups import PromptGroup, grouped_batch, prompt_groups
from jaxalign.data.text_outputs import Texts, texts_of, with_outputs

# So many batches are looked at, a power of two from the number of steps on: so a run of about as
# many steps as another finds its program compiled.
LEAST_BATCHES, MOST_BATCHES = 16, 64
SHARES = (0.5, 0.75, 0.9, 0.95, 1.0)  # of the batches, which a row of a candidate length holds
# What the program of a step costs to compile, as tokens times parameters that steps compute in that
# time, 5 seconds; and the share of the cost that packed rows may have to be taken.
COMPILATION = 1.25e11
GAIN = 0.95


@pytree
class PackedStep:
    """A batch, and its texts in packed rows.

    texts: `[N, L]`, with an axis of one in front.
    rows: the batch, with such an axis too; in place of tokens it has the places of their outputs
      among the `N L`, of a text with one output the place of its last token.
    """

    texts: PackedBatch
    rows: Any

    @property
    def padding(self) -> float:
        """Share of the packed tokens that are padding, of a batch in NumPy."""
        return float(1 - self.texts.mask.mean())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packing:
    """How batches are packed.

    shape: `(N, L)`, packed rows and tokens of each.
    pad_id: of padding.
    of_texts: whether the loss reads one output of each text, and not one of each token.
    """

    shape: tuple[int, int]
    pad_id: int
    of_texts: bool

    def __call__(self, batch: Any) -> PackedStep | None:
        """The batch packed; None: it does not fit."""
        count, length = self.shape
        texts, groups = _groups_of(batch)
        rows = _packed(groups, length)
        if rows is None or len(rows) > count:
            return None
        rows += [[]] * (count - len(rows))
        packed, places = grouped_batch(texts, rows, pad_id=self.pad_id, length=length)
        found = {
            i: (row * length + columns).astype(np.int32) for i, (row, columns) in places.items()
        }
        outputs = {texts[i].key: x[-1] if self.of_texts else x for i, x in found.items()}
        both = packed, with_outputs(batch, outputs)
        packed, rows = jax.tree.map(lambda x: np.asarray(x)[None], both)
        return PackedStep(texts=packed, rows=rows)


def packing_of(
    batches: Callable[[int], Any], *, updates: int, parameters: int, pad_id: int, of_texts: bool
) -> Packing | None:
    """How the batches of a run are packed; None: there is nothing to gain.

    It is the shape with which the steps of the run take least, among those that hold most batches;
    the others are computed as they are, by a program of their own.

    Args:
      batches: number of the batch -> batch in NumPy, beyond the last one too.
      updates: how many are taken.
      parameters: of the model.
      pad_id, of_texts: as of `Packing`.
    """
    count = min(MOST_BATCHES, max(LEAST_BATCHES, 1 << (updates - 1).bit_length()))
    looked = [batches(number) for number in range(count)]
    groups = [_groups_of(batch)[1] for batch in looked]
    if not all(groups):
        return None
    plain = np.array([_cost_of(batch) for batch in looked])
    compilation = COMPILATION / parameters
    best, least = None, GAIN * (plain.sum() + compilation)
    for length in _row_lengths(groups):
        rows = np.array([len(_packed(part, length) or [0] * len(looked)) for part in groups])
        for most in np.unique(rows):
            cost = np.where(rows <= most, _cost(int(most) * length, length), plain).sum()
            cost += compilation * (1 + (rows > most).any())
            if cost < least:
                best, least = (int(most), length), cost
    return None if best is None else Packing(shape=best, pad_id=pad_id, of_texts=of_texts)


def _row_lengths(groups: list[list[PromptGroup]]) -> list[int]:
    """Candidates for the tokens of a packed row: one that holds a batch, or several for it."""
    totals = [sum(group.size for group in part) for part in groups]
    longest = max(group.size for part in groups for group in part)
    spans = [int(longest * span) for span in SPANS]
    quantiles = [int(total) for total in np.quantile(totals, SHARES, method="higher")]
    return sorted({-(-length // UNIT) * UNIT for length in (*spans, *quantiles)})


def _groups_of(batch: Any) -> tuple[list[TokenRow], list[PromptGroup]]:
    """All texts of a batch, each once, and how they share prompts, the largest group first."""
    texts = list({row.key: row for row in texts_of(batch)}.values())
    return texts, sorted(prompt_groups(texts), key=lambda group: -group.size)


def _packed(groups: list[PromptGroup], length: int) -> list[list[PromptGroup]] | None:
    """Rows of up to this many tokens; None: a group is longer."""
    sizes = [group.size for group in groups]
    if max(sizes, default=0) > length:
        return None
    return [[groups[place] for place in row] for row in best_fit(sizes, length)]


def _cost_of(batch: Any) -> float:
    """Tokens that a batch computes as it is, padding included, with what attention adds."""
    total = 0.0
    for part in jax.tree.leaves(batch, is_leaf=lambda part: isinstance(part, Texts)):
        if isinstance(part, TokenBatch):
            total += _cost(part.mask.size, part.mask.shape[-1])
        elif isinstance(part, SharedPrompts):
            prompt, own = part.prompts.shape[-1], part.responses.shape[-1]
            total += _cost(part.prompts.size, prompt) + _cost(part.responses.size, prompt + own)
    return total


def _cost(tokens: int, length: int) -> float:
    return tokens * (1 + length / ATTENTION)
