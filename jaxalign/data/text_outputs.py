"""The texts of a batch, and outputs of a model for them in the places of their tokens."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxalign.batches.tokens import SharedPrompts, TokenBatch
from jaxalign.data.chat import TokenRow
from jaxalign.numerics.types import Params

Texts = TokenBatch | SharedPrompts


def texts_of(batch: Any) -> list[TokenRow]:
    """All texts of a batch in NumPy."""
    return [row for part in _parts(batch) for row in _texts(part) if len(row)]


def with_outputs(batch: Any, outputs: Mapping[bytes, Any]) -> Any:
    """The batch with the outputs for its tokens in their places, for `outputs_of` to read."""

    def changed(part: Any) -> Any:
        if not isinstance(part, Texts):
            return part
        mask = part.mask
        width = mask.shape[-1]
        example = next(iter(outputs.values()))
        found = [outputs.get(row.key) for row in _texts(part)]
        masks = mask.reshape(-1, width)

        def placed(number: int, like: Any) -> Any:
            dtype = np.asarray(like).dtype
            if np.ndim(like) == 0:
                values: Any = [0 if x is None else jax.tree.leaves(x)[number] for x in found]
                return np.asarray(values, dtype).reshape(mask.shape[:-1])
            array = np.zeros((len(found), width), dtype)
            for row, output, real in zip(array, found, masks, strict=True):
                if output is not None:  # the last tokens, behind what a shared prompt holds
                    tokens = jax.tree.leaves(output)[number]
                    row[real] = tokens[len(tokens) - np.count_nonzero(real) :]
            return array.reshape(mask.shape)

        leaves, structure = jax.tree.flatten(example)
        tree = structure.unflatten([placed(number, leaf) for number, leaf in enumerate(leaves)])
        name = "responses" if isinstance(part, SharedPrompts) else "tokens"
        return dataclasses.replace(part, **{name: tree})

    return jax.tree.map(changed, batch, is_leaf=lambda part: isinstance(part, Texts))


def outputs_of(params: Params, rows: Texts, keys: Any = None) -> Any:
    """The outputs that `with_outputs` has put into a batch: a model's part in an objective."""
    return rows.responses if isinstance(rows, SharedPrompts) else rows.tokens


def _parts(batch: Any) -> list[Texts]:
    leaves = jax.tree.leaves(batch, is_leaf=lambda part: isinstance(part, Texts))
    return [part for part in leaves if isinstance(part, Texts)]


def _texts(part: Texts) -> list[TokenRow]:
    """Every text of a part of a batch, in the order of its rows; one of padding has no token."""
    width = part.mask.shape[-1]
    if isinstance(part, TokenBatch):
        masks, tokens = part.mask.reshape(-1, width), part.tokens.reshape(-1, width)
        responses = part.response_mask.reshape(-1, width)
        parts = zip(tokens, masks, responses, strict=True)
        return [TokenRow(row[mask], response[mask]) for row, mask, response in parts]
    rows: list[TokenRow] = []
    for b, prompt in enumerate(part.prompts):
        before = prompt[part.prompt_mask[b]]
        for k, mask in enumerate(part.mask[b]):
            rows.append(
                TokenRow(
                    np.concatenate([before, part.responses[b, k][mask]]),
                    np.concatenate([np.zeros(len(before), bool), part.response_mask[b, k][mask]]),
                )
            )
    return rows
