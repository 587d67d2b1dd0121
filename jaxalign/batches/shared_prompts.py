"""Rows that hold a prompt once and several responses behind it, so that it is read once.

The sampler puts a response a row, and the rows of a group side by side: row `i * K + j` is response
j of group i. All prompts end in the same column. The batches made here hold the same numbers with
each prompt once.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxalign.batches.experience import ResponseBatch
from jaxalign.batches.tokens import SharedPrompts, TokenBatch


def responses_in_a_row(group_size: int, *, rows: int, parts: int) -> int:
    """Number K of responses of a group that share a row: all, or fewer that divide it equally.

    A prompt is read once for K responses, so that a larger K never computes more.

    Args:
      group_size: G, responses to a prompt.
      rows: responses of an iteration, a multiple of G.
      parts: equal parts of the iteration (minibatches, micro-batches, devices); a row is never
        cut.

    Returns:
      The largest K that fits; 1 if there is none.

    >>> responses_in_a_row(8, rows=256, parts=4), responses_in_a_row(6, rows=24, parts=8)
    (8, 3)
    """
    counts = range(group_size, 1, -1)
    return next((k for k in counts if group_size % k == 0 and rows // k % parts == 0), 1)


def shared_rows(rows: TokenBatch, *, count: int, longest: int) -> SharedPrompts:
    """Sampled rows, `count` side by side to the same prompt, as `SharedPrompts`.

    Args:
      rows: `[B, P + R]` from `sample`.
      count: K, a divisor of B.
      longest: R, columns of the responses.
    """
    prompt = rows.tokens.shape[1] - longest
    responses = _by_row(rows.response_mask[:, prompt:], count)
    return SharedPrompts(
        prompts=rows.tokens[::count, :prompt],
        prompt_mask=rows.prompt_mask[::count, :prompt],
        responses=_by_row(rows.tokens[:, prompt:], count),
        mask=responses,
        response_mask=responses,
        index=rows.index[::count],
    )


def shared_sides(sides: Sequence[TokenBatch], *, longest: int) -> SharedPrompts:
    """Samples from the same prompts, one batch a side of a pair, as `SharedPrompts` of K sides.

    Args:
      sides: each `[B, P + R]` from `sample`.
      longest: R, columns of the responses.
    """
    rows = jax.tree.map(lambda *arrays: one_a_row(jnp.stack(arrays, axis=1)), *sides)
    return shared_rows(rows, count=len(sides), longest=longest)


def shared_batch(batch: ResponseBatch, *, count: int, longest: int) -> ResponseBatch:
    """A `ResponseBatch` with `SharedPrompts` for inputs; arguments as in `shared_rows`."""
    assert isinstance(batch.inputs, TokenBatch), "these prompts are shared already"
    prompt = batch.inputs.tokens.shape[1] - longest

    def responses(x: jax.Array) -> jax.Array:
        return _by_row(x[:, prompt:], count)

    advantages = batch.advantages
    return ResponseBatch(
        inputs=shared_rows(batch.inputs, count=count, longest=longest),
        mask=responses(batch.mask),
        behaviour_logps=responses(batch.behaviour_logps),
        reference_logps=responses(batch.reference_logps),
        advantages=responses(advantages) if advantages.ndim == 2 else _by_row(advantages, count),
        weights=responses(batch.weights),
        index=batch.index[::count],
    )


def response_rows(batch: ResponseBatch) -> ResponseBatch:
    """A `ResponseBatch` of `[B, K, R]` with a response a row, `[B K, R]`; inputs are unchanged."""
    return dataclasses.replace(
        batch,
        mask=one_a_row(batch.mask),
        behaviour_logps=one_a_row(batch.behaviour_logps),
        reference_logps=one_a_row(batch.reference_logps),
        advantages=one_a_row(batch.advantages),
        weights=one_a_row(batch.weights),
    )


def one_a_row(x: jax.Array) -> jax.Array:
    """Arrays with a response a row, `[B K, ...]`, from K responses a row, `[B, K, ...]`."""
    return x.reshape(-1, *x.shape[2:])


def behind_prompts(x: jax.Array, columns: int) -> jax.Array:
    """Numbers of the tokens of whole rows, `[B K, columns + R]`, 0 in the prompts, from those of
    responses, `[B, K, R]`.
    """
    return jnp.pad(one_a_row(x), ((0, 0), (columns, 0)))


def _by_row(x: jax.Array, count: int) -> jax.Array:
    """Arrays with `count` responses a row, `[B / count, count, ...]`, from one a row."""
    return x.reshape(-1, count, *x.shape[1:])
