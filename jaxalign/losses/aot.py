"""Alignment via optimal transport: distributions of rewards are ordered, not single pairs."""

import jax
import jax.numpy as jnp

from jaxalign.batches.preferences import PairLogps
from jaxalign.losses.declarations import PAIRED, Loss
from jaxalign.losses.dpo import dpo_loss, log_ratios
from jaxalign.numerics.arguments import assert_same_shape
from jaxalign.numerics.collectives import gather, own_rows
from jaxalign.numerics.precision import widen

__all__ = (
    "AOT",
    "AOT_UNPAIRED",
    "aot_loss",
    "aot_unpaired_loss",
)


def _of_same_rank(
    values: jax.Array, others: jax.Array, weights: jax.Array, axis_name: str | None
) -> jax.Array:
    """The entries of `others` that have the ranks of `values` among all rows.

    Rows of weight 0 rank last, on every device.
    """
    real = gather(weights, axis_name) > 0

    def order(x: jax.Array) -> jax.Array:
        return jnp.argsort(jnp.where(real, x, jnp.inf))

    ranks = jnp.argsort(order(gather(values, axis_name)))
    all_others = gather(others, axis_name)
    ordered = all_others[order(all_others)]
    return ordered[own_rows(ranks, len(values), axis_name)]


def _sorted_loss(
    values: jax.Array,
    others: jax.Array,
    weights: jax.Array,
    *,
    beta: float,
    label_smoothing: float,
    axis_name: str | None,
) -> jax.Array:
    """DPO loss on margins of equal rank: sorted `values` against sorted `others`."""
    assert_same_shape(values=values, others=others, weights=weights)
    others = _of_same_rank(values, others, weights, axis_name)
    margins = PairLogps(chosen=values, rejected=others)
    zero = jnp.zeros_like(values)
    zeros = PairLogps(chosen=zero, rejected=zero)
    return dpo_loss(margins, zeros, beta=beta, label_smoothing=label_smoothing)


def aot_loss(
    policy: PairLogps,
    reference: PairLogps,
    weights: jax.Array,
    *,
    beta: float,
    label_smoothing: float = 0.0,
    axis_name: str | None = None,
) -> jax.Array:
    """Loss by which the policy's margins dominate the reference's, rank by rank over the batch.

      L_i = -log sigmoid(beta (m_(i) - m_ref(i))),  m = log pi(chosen) - log pi(rejected), sorted

    Row i has the loss of its rank among the policy's margins.

    Args:
      policy: `[B]` nats a side, summed over the response.
      reference: the same under the frozen reference; gets no gradient.
      weights: `[B]`, 0 for rows of padding, which have no rank.
      beta: reward units per nat, above 0.
      label_smoothing: assumed share of flipped labels, in [0, 0.5).
      axis_name: mapped axis that the rest of the batch is on, or None.

    Returns:
      `[B]` nats; without meaning where the weight is 0.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: pairs are noisy, but their distribution is to be trusted; large batches.
    TRL: `loss_type="aot"`.
    Source: Melnyk et al. 2024, https://arxiv.org/abs/2406.05882, the paired AOT loss.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> print(aot_loss(pair, pair, jnp.ones(1), beta=0.1).round(4))  # log 2
    [0.6931]
    """
    arrays = [policy.chosen, policy.rejected, reference.chosen, reference.rejected]
    assert_same_shape(policy=policy, reference=reference, weights=weights)
    chosen, rejected, reference_chosen, reference_rejected = widen(*arrays)
    margins = chosen - rejected
    theirs = jax.lax.stop_gradient(reference_chosen - reference_rejected)
    return _sorted_loss(
        margins,
        theirs,
        weights,
        beta=beta,
        label_smoothing=label_smoothing,
        axis_name=axis_name,
    )


def aot_unpaired_loss(
    policy: PairLogps,
    reference: PairLogps,
    weights: jax.Array,
    *,
    beta: float,
    label_smoothing: float = 0.0,
    axis_name: str | None = None,
) -> jax.Array:
    """Loss by which rewards of chosen responses dominate those of rejected ones, rank by rank.

      L_i = -log sigmoid(beta (h_chosen(i) - h_rejected(i))),  h = log(pi / pi_ref), each sorted

    Row i has the loss of the rank of its chosen response; who is whose partner does not matter.

    Args:
      policy: `[B]` nats a side, summed over the response.
      reference: the same under the frozen reference; gets no gradient.
      weights: `[B]`, 0 for rows of padding, which have no rank.
      beta: reward units per nat, above 0.
      label_smoothing: assumed share of flipped labels, in [0, 0.5).
      axis_name: mapped axis that the rest of the batch is on, or None.

    Returns:
      `[B]` nats; without meaning where the weight is 0.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: as many good as bad responses, not to the same prompts.
    TRL: `loss_type="aot_unpaired"` (until 0.24 `"aot_pair"`).
    Source: Melnyk et al. 2024, https://arxiv.org/abs/2406.05882, the unpaired AOT loss.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> print(aot_unpaired_loss(pair, pair, jnp.ones(1), beta=0.1).round(4))  # log 2
    [0.6931]
    """
    ratios = log_ratios(policy, reference)
    return _sorted_loss(
        ratios.chosen,
        ratios.rejected,
        weights,
        beta=beta,
        label_smoothing=label_smoothing,
        axis_name=axis_name,
    )


AOT = Loss(name="aot", kind=PAIRED, function=aot_loss, hyperparameters={"beta": 0.1})
AOT_UNPAIRED = Loss(
    name="aot_unpaired", kind=PAIRED, function=aot_unpaired_loss, hyperparameters={"beta": 0.1}
)
