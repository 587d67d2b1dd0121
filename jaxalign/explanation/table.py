"""Why a loss is what it is: all that each token of a batch carries into it, and what it gets back.

The model is read once. Its log-probabilities (and values) become a table; the same objective is
evaluated on that table alone, so that its gradient is the weight of every token, and so that the
table provably holds everything the loss depends on.
"""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np

from jaxalign.batches.tokens import TokenBatch
from jaxalign.train.step import LossFn, means, metric_means


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sum:
    """A number of the loss and the same from the table: `name`, `loss`, `table`."""

    name: str
    loss: float
    table: float

    @property
    def agrees(self) -> bool:
        """Equal up to the rounding of float32 sums in another order."""
        return bool(abs(self.loss - self.table) <= 1e-5 * max(1.0, abs(self.loss)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sequence:
    """One row of the batch.

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
    """The loss of a batch with its sequences, metrics and the sums that were compared.

    notes: what else the reader must know of the numbers, a sentence each.
    """

    loss: float
    weight: float
    metrics: Mapping[str, float]
    sequences: list[Sequence]
    sums: list[Sum]
    notes: tuple[str, ...] = ()


def mean_loss(loss_fn: LossFn, params, batch, key):
    """`(loss, (weight, metrics))` as a step reports them: sums divided by the weight."""
    total, (weight, sums) = loss_fn(params, batch, key)
    return means(total, weight), (weight, metric_means(sums, weight))


def on_table(loss_fn: LossFn, table, batch, key):
    """The loss of a table of model outputs, and its gradient: what one more nat would change.

    Args:
      loss_fn: the objective, made with a model that returns its parameters (`from_table`).
      table: what the model would return for the rows of the batch.

    Returns:
      `(loss, gradient)`; the gradient has the structure of `table`.
    """

    def loss(table):
        return mean_loss(loss_fn, table, batch, key)[0]

    return jax.value_and_grad(loss)(table)


def from_table(table, rows, keys=None):
    """A model whose parameters are its outputs."""
    del rows, keys
    return table


def sequences(
    name: str, rows: TokenBatch, columns, totals, *, remarks: list[str] | None = None
) -> list[Sequence]:
    """The rows of a batch, each with its part of the columns, and a remark behind its title."""
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


def explanation_of(loss, weight, metrics, sequences, sums) -> Explanation:
    """The same with Python's numbers in place of arrays."""
    numbers = {name: float(value) for name, value in metrics.items()}
    return Explanation(
        loss=float(loss), weight=float(weight), metrics=numbers, sequences=sequences, sums=sums
    )
