"""Training steps that compute the texts of a batch packed.

The texts go through the model in packed rows, and the outputs of those are put where the tokens of
the batch stand: loss and gradient are those of the batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.batches.functions import LossFn, LossSums
from jaxalign.batches.tokens import SharedPrompts, TokenBatch
from jaxalign.data.step_packing import PackedStep
from jaxalign.data.text_outputs import outputs_of
from jaxalign.layouts.layout import Layout
from jaxalign.models.trunk import DEEP
from jaxalign.numerics.types import Params
from jaxalign.recipes.text_models import TextModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedLoss:
    """The loss of packed texts.

    loss_fn: from `packed_loss`.
    of_texts: as of `Packing`.
    """

    loss_fn: LossFn
    of_texts: bool = False


def packed_loss(make_loss: Callable[[Callable[..., Any]], LossFn], read: Callable[..., Any]):
    """The loss of a `PackedStep`, equal to that of its batch.

    Args:
      make_loss: `read -> loss_fn`, a function of `objectives` with its numbers.
      read: `(params, PackedBatch) -> [N, L]` outputs of the model, or several such arrays.
    """

    def loss_fn(params: Params, batch: PackedStep, key: jax.Array, **more: Any) -> LossSums:
        texts, rows = jax.tree.map(lambda x: x[0], (batch.texts, batch.rows))
        outputs = jax.tree.map(lambda x: x.reshape(-1), read(params, texts))

        def placed(_: Params, part: TokenBatch | SharedPrompts, keys: Any = None) -> Any:
            places = outputs_of(params, part)
            is_real = part.mask if places.ndim == part.mask.ndim else part.mask.any(axis=-1)
            return jax.tree.map(lambda x: jnp.where(is_real, x[places], 0), outputs)

        return make_loss(placed)(params, rows, key, **more)

    return loss_fn


def can_be_packed(model: TextModel, layout: Layout) -> bool:
    """Whether steps may pack their texts: of a deep model without noise, on one processor, where
    the tokens of a step are what takes the time.
    """
    alone = len(layout.devices) == 1 and layout.devices[0].platform == "cpu"
    noise = max(model.model.config.dropout, getattr(model.model, "dropout", 0.0))
    return alone and noise == 0 and model.model.config.layers >= DEEP
