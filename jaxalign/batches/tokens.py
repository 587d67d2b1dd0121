"""Rows of tokens: one text a row, packed texts, prompts that several responses share."""

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax
import numpy as np

__all__ = ("TokenBatch",)

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def pytree(cls: type[T]) -> type[T]:
    """Class decorator: a frozen, keyword-only dataclass that is a pytree of its fields."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True, kw_only=True)(cls))


@dataclass_transform(frozen_default=True)
def positional_pytree(cls: type[T]) -> type[T]:
    """Class decorator: as `pytree`, of few fields in an obvious order, by position or by name."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


@pytree
class TokenBatch:
    """Token sequences: prompt, then response; padding may stand on either side.

    tokens: `[B, T]` int32 ids.
    prompt_mask: `[B, T]` bool, true where the token belongs to the prompt.
    response_mask: `[B, T]` bool, true where the token belongs to the response (what is trained on).
    index: `[B]` int32 global example index; noise (dropout, sampling) is folded from it.
    """

    tokens: jax.Array
    prompt_mask: jax.Array
    response_mask: jax.Array
    index: jax.Array

    @property
    def mask(self) -> jax.Array:
        """`[B, T]` bool: true on every real token."""
        return self.prompt_mask | self.response_mask


@pytree
class PackedBatch:
    """Packed rows of several texts, one behind the other; attention stays within a text.

    Texts that begin alike may share their beginning: it stands there once, and then what follows
    it in each of them, a branch.

    tokens, prompt_mask, response_mask: `[B, T]` as in `TokenBatch`; padding stands on the right.
    segments: `[B, T]` int32, number of a token's text in its row, from 0 on; padding has that of
      the last text.
    index: `[B, S]` int32 global example index of each text, S of them in the fullest row; noise is
      folded from it.
    branches: `[B, T]` int32, number of a token's branch in its text, from 1 on; 0: all branches go
      on from it. None: no text has branches.
    """

    tokens: jax.Array
    prompt_mask: jax.Array
    response_mask: jax.Array
    segments: jax.Array
    index: jax.Array
    branches: jax.Array | None = None

    @property
    def mask(self) -> jax.Array:
        """`[B, T]` bool: true on every real token."""
        return self.prompt_mask | self.response_mask


@pytree
class SharedPrompts:
    """Prompts with K responses to each, so that the network reads a prompt once.

    prompts: `[B, P]` int32 ids, the shared prefix of the K sequences of a row.
    prompt_mask: `[B, P]` bool, true on real tokens; padding may stand on either side.
    responses: `[B, K, R]` int32 ids, the continuations, from column 0 on.
    mask: `[B, K, R]` bool, true on real tokens.
    response_mask: `[B, K, R]` bool, true on those that are trained on.
    index: `[B]` int32 global example index; noise is folded from it.
    """

    prompts: jax.Array
    prompt_mask: jax.Array
    responses: jax.Array
    mask: jax.Array
    response_mask: jax.Array
    index: jax.Array


def token_count(batch: Any) -> int:
    """Number of real tokens of a batch in NumPy, a shared prompt once; 0 where it has no rows of
    tokens.

    Args:
      batch: a pytree that may hold `TokenBatch`, `PackedBatch` and `SharedPrompts`.
    """
    kinds = (TokenBatch, PackedBatch, SharedPrompts)
    parts = jax.tree.leaves(batch, is_leaf=lambda part: isinstance(part, kinds))
    rows = [part for part in parts if isinstance(part, kinds)]
    prompts = [part.prompt_mask for part in rows if isinstance(part, SharedPrompts)]
    return sum(int(np.sum(mask)) for mask in [*(part.mask for part in rows), *prompts])
