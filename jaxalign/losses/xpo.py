"""Exploratory preference optimization: online DPO with a bonus for leaving the reference."""

import jax

from jaxalign.batches.preferences import PairLogps
from jaxalign.losses.declarations import ONLINE, Loss
from jaxalign.losses.dpo import dpo_loss
from jaxalign.numerics.arguments import assert_range, assert_same_shape
from jaxalign.numerics.bounds import NOT_NEGATIVE
from jaxalign.numerics.precision import widen

__all__ = (
    "XPO",
    "xpo_loss",
)


def xpo_loss(
    policy: PairLogps,
    reference: PairLogps,
    reference_sample_logps: jax.Array,
    *,
    beta: float,
    alpha: float,
) -> jax.Array:
    """The DPO loss plus optimism: what the reference writes becomes less likely.

      L = alpha log pi(y~) - log sigmoid(r_chosen - r_rejected),  y~ ~ pi_ref

    with r = beta log(pi / pi_ref).

    Args:
      policy: `[B]` nats a side; one side was sampled from the policy, one from the reference.
      reference: the same under the frozen reference; gets no gradient.
      reference_sample_logps: `[B]` nats under the policy, of the reference's sample.
      beta: strength of the pull towards the reference, above 0.
      alpha: weight of the bonus, at least 0 (1e-5 in the paper).

    Returns:
      `[B]`.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: online DPO stops finding better responses.
    TRL: `XPOTrainer`, `alpha`.
    Source: Xie et al. 2024, https://arxiv.org/abs/2405.21046, Alg. 1.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> print(f"{xpo_loss(pair, pair, pair.rejected, beta=0.1, alpha=0.1)[0]:.4f}")  # log 2 - 0.2
    0.4931
    """
    assert_range(NOT_NEGATIVE, alpha=alpha)
    losses = dpo_loss(policy, reference, beta=beta)
    assert_same_shape(losses=losses, reference_sample_logps=reference_sample_logps)
    return losses + alpha * widen(reference_sample_logps)[0]


XPO = Loss(
    name="xpo",
    kind=ONLINE,
    function=xpo_loss,
    hyperparameters={"beta": 0.1, "alpha": 1e-5},
    opponent=1.0,
)
