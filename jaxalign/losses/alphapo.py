"""AlphaPO: SimPO with a reward whose shape is a parameter."""

import jax
import jax.numpy as jnp

from jaxalign.batches.preferences import PairLengths, PairLogps
from jaxalign.losses.declarations import PAIRED, Loss
from jaxalign.losses.dpo import dpo_loss, no_reference
from jaxalign.losses.length_normalised_dpo import per_token
from jaxalign.numerics.arguments import assert_range
from jaxalign.numerics.bounds import ABOVE_ZERO, Real
from jaxalign.numerics.precision import saturating_expm1

__all__ = (
    "ALPHAPO",
    "alphapo_loss",
)


def alphapo_loss(
    policy: PairLogps,
    lengths: PairLengths,
    *,
    beta: float,
    gamma: Real,
    alpha: Real,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """SimPO on a power of the length-normalised probability instead of its logarithm.

      L = -log sigmoid(r_chosen - r_rejected - gamma),  r = beta (1 - p^-alpha) / alpha,
      p = exp(log pi(y) / |y|)

    alpha -> 0 is SimPO. p itself is never formed, so that unlikely responses do not overflow.

    Args:
      policy: `[B]` nats a side, summed over the response.
      lengths: `[B]` response tokens a side; an empty response counts as one of one token.
      beta: reward units, above 0.
      gamma: target margin, reward units.
      alpha: shape of the reward, not 0 (0.25 in the paper).
      label_smoothing: assumed share of flipped labels, in [0, 0.5).

    Returns:
      `[B]` nats.

    Raises:
      AssertionError: the shapes differ.
      ValueError: alpha is 0, or a number outside its range.

    When: SimPO moves likelihoods too far or not far enough.
    TRL: `CPOTrainer` with `loss_type="alphapo"`, `alpha`.
    Source: Gupta et al. 2025, https://arxiv.org/abs/2501.03884, the AlphaPO loss.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> lengths = PairLengths(chosen=jnp.array([1]), rejected=jnp.array([2]))
    >>> print(alphapo_loss(pair, lengths, beta=2.0, gamma=0.0, alpha=0.25).round(4))  # log 2
    [0.6931]
    """
    if alpha == 0:
        raise ValueError("alpha must not be 0; there it is simpo_loss")
    assert_range(ABOVE_ZERO, beta=beta)
    averages = per_token(policy, lengths)

    def shaped(x: jax.Array) -> jax.Array:
        return -beta * saturating_expm1(-alpha * x) / alpha

    # gamma last: next to rewards as large as exp(-alpha log p) it would round away.
    margin = shaped(averages.chosen) - shaped(averages.rejected) - gamma
    rewards = PairLogps(chosen=margin, rejected=jnp.zeros_like(margin))
    return dpo_loss(rewards, no_reference(rewards), beta=1.0, label_smoothing=label_smoothing)


ALPHAPO = Loss(
    name="alphapo",
    kind=PAIRED,
    function=alphapo_loss,
    hyperparameters={"beta": 2.5, "gamma": 0.25, "alpha": 0.25},
    per_token=True,
)
