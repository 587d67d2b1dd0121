"""Hinge losses on pairs: no gradient beyond the margin."""

import jax

from jaxalign.batches.preferences import PairLogps
from jaxalign.losses.declarations import PAIRED, Loss
from jaxalign.losses.dpo import implicit_rewards

__all__ = (
    "HINGE",
    "hinge_loss",
)


def hinge_loss(policy: PairLogps, reference: PairLogps, *, beta: float) -> jax.Array:
    """The hinge loss on the difference of implicit rewards.

      L = max(0, 1 - (r_chosen - r_rejected)),  r = beta log(pi / pi_ref)

    Args:
      policy: `[B]` nats a side, summed over the response.
      reference: the same under the frozen reference; gets no gradient.
      beta: reward units per nat, above 0; 1 / beta is the margin in nats.

    Returns:
      `[B]`, at least 0; 1 where policy and reference agree.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: pairs that are already told apart should be left alone.
    TRL: `loss_type="hinge"`.
    Source: Zhao et al. 2023, https://arxiv.org/abs/2305.10425 (SLiC), normalised by the reference
      as in Liu et al. 2023, https://arxiv.org/abs/2309.06657 (RSO).

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> hinge_loss(pair, pair, beta=0.1).tolist()
    [1.0]
    """
    rewards = implicit_rewards(policy, reference, beta=beta)
    return jax.nn.relu(1 - (rewards.chosen - rewards.rejected))


HINGE = Loss(name="hinge", kind=PAIRED, function=hinge_loss, hyperparameters={"beta": 0.1})
