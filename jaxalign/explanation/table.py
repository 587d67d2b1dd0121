"""The explanation of a loss as a table: log-probability and gradient of every token of a batch.

The model is read once. Its log-probabilities (and values) become a table; the same objective is
evaluated on that table alone, so that its gradient is the weight of every token, and so that the
table provably holds everything the loss depends on.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxalign.batches.functions import LossFn
from jaxalign.batches.tokens import TokenBatch
from jaxalign.train.step import means, metric_means

MakeLoss = Callable[[Callable[..., Any]], LossFn]  # of a model, or of `from_table`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sum:
    """A number of the batch twice: as the loss reports it, and added up from the table."""

    name: str
    loss: float
    table: float

    @property
    def agrees(self) -> bool:
        """Whether they are equal up to the rounding of float32 sums in another order."""
        return bool(abs(self.loss - self.table) <= 1e-5 * max(1.0, abs(self.loss)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sequence:
    """One row of the batch, token by token.

    title: which row it is. tokens: `[T]` ids. is_prompt, is_response: `[T]` bool.
    columns: name to `[T]` numbers (or `[T]` strings), meant where `is_response`.
    totals: numbers of the whole row.
    """

    title: str
    tokens: np.ndarray
    is_prompt: np.ndarray
    is_response: np.ndarray
    columns: Mapping[str, np.ndarray]
    totals: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explanation:
    """Loss and metrics of a batch, its sequences token by token, and sums that must agree.

    notes: what else the reader must know of the numbers, a sentence each.
    """

    loss: float
    weight: float
    metrics: Mapping[str, float]
    sequences: list[Sequence]
    sums: list[Sum]
    notes: tuple[str, ...] = ()


def mean_loss(loss_fn: LossFn, params: Any, batch: Any, key: jax.Array):
    """Mean loss, weight and mean metrics of a batch, as a training step reports them.

    Returns:
      `(loss, (weight, metrics))`.
    """
    total, (weight, sums) = loss_fn(params, batch, key)
    return means(total, weight), (weight, metric_means(sums, weight))


def on_table(loss_fn: LossFn, table: Any, batch: Any, key: jax.Array):
    """Loss of a table of model outputs, and its gradient by each entry.

    Args:
      loss_fn: the objective, made with a model that returns its parameters (`from_table`).
      table: what the model would return for the rows of the batch.

    Returns:
      `(loss, gradient)`; the gradient has the structure of `table`.
    """

    def loss(table: Any) -> jax.Array:
        return mean_loss(loss_fn, table, batch, key)[0]

    return jax.value_and_grad(loss)(table)


def from_table(table: Any, rows: Any, keys: Any = None) -> Any:
    """Model whose parameters are its outputs for the batch: a table of log-probabilities."""
    del rows, keys
    return table


def sequences(
    name: str,
    rows: TokenBatch,
    columns: Mapping[str, Any],
    totals: Mapping[str, Any],
    *,
    remarks: list[str] | None = None,
) -> list[Sequence]:
    """Rows of a batch as sequences with their columns, totals and titles.

    Args:
      name: of a row, before its number.
      rows: `[B, T]` tokens.
      columns: name to `[B, T]`. totals: name to `[B]`.
      remarks: `B` texts, behind the titles.
    """
    tokens, prompt, response = map(np.asarray, (rows.tokens, rows.prompt_mask, rows.response_mask))
    columns = {key: np.asarray(value) for key, value in columns.items()}
    return [
        Sequence(
            title=f"{name} {number}{remark}",
            tokens=tokens[number],
            is_prompt=prompt[number],
            is_response=response[number],
            columns={key: value[number] for key, value in columns.items()},
            totals={key: float(value[number]) for key, value in totals.items()},
        )
        for number, remark in enumerate(remarks or [""] * len(tokens))
    ]


def explanation_of(
    reported: tuple[Any, tuple[Any, Mapping[str, Any]]],
    sequences: list[Sequence],
    sums: list[Sum],
    *,
    notes: tuple[str, ...] = (),
) -> Explanation:
    """Explanation of a loss from the results of `mean_loss`, as Python numbers."""
    loss, (weight, metrics) = reported
    return Explanation(
        loss=float(loss),
        weight=float(weight),
        metrics={name: float(value) for name, value in metrics.items()},
        sequences=sequences,
        sums=sums,
        notes=notes,
    )
