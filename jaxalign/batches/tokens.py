"""Rows of tokens: one text a row, packed texts, prompts that several responses share."""

import dataclasses
from typing import dataclass_transform

import jax

__all__ = ("TokenBatch",)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def pytree(cls):
    """Class decorator: a frozen, keyword-only dataclass that jax treats as a pytree of its
    fields.
    """
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True, kw_only=True)(cls))


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
    """Several texts a row, one behind the other; a token sees those of its own text alone.

    tokens, prompt_mask, response_mask: `[B, T]` as in `TokenBatch`; padding stands on the right.
    segments: `[B, T]` int32, number of a token's text in its row, from 0 on; padding has that of
      the last text.
    index: `[B, S]` int32 global example index of each text, S of them in the fullest row; noise is
      folded from it.
    """

    tokens: jax.Array
    prompt_mask: jax.Array
    response_mask: jax.Array
    segments: jax.Array
    index: jax.Array

    @property
    def mask(self) -> jax.Array:
        """`[B, T]` bool: true on every real token."""
        return self.prompt_mask | self.response_mask


@pytree
class SharedPrompts:
    """Prompts with K responses to each: the network reads a prompt once for all of them.

    prompts: `[B, P]` int32, what the K sequences of a row begin with.
    prompt_mask: `[B, P]` bool, true on real tokens; padding may stand on either side.
    responses: `[B, K, R]` int32, how each goes on, from column 0 on.
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
