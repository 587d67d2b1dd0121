"""Simple preference optimization: average log-probabilities and a margin, no reference."""

import jax

from jaxalign.batches.preferences import PairLengths, PairLogps
from jaxalign.losses.declarations import PAIRED, Loss
from jaxalign.losses.dpo import dpo_loss, no_reference
from jaxalign.losses.length_normalised_dpo import per_token
from jaxalign.numerics.arguments import assert_range
from jaxalign.numerics.bounds import ABOVE_ZERO, Real

__all__ = (
    "SIMPO",
    "simpo_loss",
)


def simpo_loss(
    policy: PairLogps,
    lengths: PairLengths,
    *,
    beta: float,
    gamma: Real,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """Logistic regression on the difference of average log-probabilities, with a target margin.

      L = -log sigmoid(beta log pi(y_c) / |y_c| - beta log pi(y_r) / |y_r| - gamma)

    Args:
      policy: `[B]` nats a side, summed over the response.
      lengths: `[B]` response tokens a side; an empty response counts as one of one token.
      beta: reward units per nat and token, above 0 (2 to 10 in the paper).
      gamma: target margin, reward units.
      label_smoothing: assumed share of flipped labels, in [0, 0.5).

    Returns:
      `[B]` nats.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: no memory for a reference, and lengths should not be rewarded.
    TRL: `CPOTrainer` with `loss_type="simpo"`, `cpo_alpha=0`, `simpo_gamma`.
    Source: Meng et al. 2024, https://arxiv.org/abs/2405.14734, Eq. 6.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> lengths = PairLengths(chosen=jnp.array([1]), rejected=jnp.array([2]))
    >>> print(simpo_loss(pair, lengths, beta=2.0, gamma=0.0).round(4))  # log 2
    [0.6931]
    """
    assert_range(ABOVE_ZERO, beta=beta)
    averages = per_token(policy, lengths)
    rewards = PairLogps(chosen=beta * averages.chosen - gamma, rejected=beta * averages.rejected)
    return dpo_loss(rewards, no_reference(rewards), beta=1.0, label_smoothing=label_smoothing)


SIMPO = Loss(
    name="simpo",
    kind=PAIRED,
    function=simpo_loss,
    hyperparameters={"beta": 2.0, "gamma": 1.0},
    per_token=True,
)
